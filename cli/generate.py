"""elasticmm generate: ask a question, see the answer as it is made."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.answer_options import read_biases, read_format, read_tools
from cli.connection import client_of, endpoint_of
from cli.exits import INTERRUPTED, USAGE, fail, print_json
from cli.options import AddressOption, JsonOption, NameOption, StateDirOption
from cli.state import DEFAULT_NAME
from core.cache.scope import CacheScope

if TYPE_CHECKING:
    from elasticmm_client import GenerateOptions, GenerateResult, Stream


def run(
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="The question. '-' reads it from the input.")
    ],
    *,
    image: Annotated[
        list[str] | None, typer.Option("--image", metavar="FILE", help="Picture file or URL; repeatable.")
    ] = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="System message.")] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", help="Most tokens of the answer. Default: up to the context length."),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(metavar="X", help="0 (default) takes the best token.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(metavar="X", help="Share of probability to draw from.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(metavar="N", help="Tokens to draw from; 0 all.")] = None,
    min_p: Annotated[
        float | None, typer.Option(metavar="X", help="Least share of the best token's probability.")
    ] = None,
    presence_penalty: Annotated[float | None, typer.Option(metavar="X", help="-2 to 2.")] = None,
    frequency_penalty: Annotated[float | None, typer.Option(metavar="X", help="-2 to 2.")] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(metavar="X", help="Above 0 to 10; 1 none.")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Makes draws repeatable.")] = None,
    logprobs: Annotated[
        int | None,
        typer.Option(metavar="N", help="With --json: log probabilities with so many alternatives."),
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Ends the answer; repeatable.")
    ] = None,
    stop_token_id: Annotated[
        list[int] | None, typer.Option(metavar="ID", help="Ends the answer with this token; repeatable.")
    ] = None,
    ignore_eos: Annotated[bool, typer.Option("--ignore-eos", help="Go on up to --max-tokens.")] = False,
    logit_bias: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=BIAS", help="Added to a token's logit, -100 to 100; repeatable."),
    ] = None,
    json_object: Annotated[
        bool, typer.Option("--json-object", help="The answer is to be a JSON object.")
    ] = False,
    json_schema: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The answer is to fit this JSON schema.")
    ] = None,
    regex: Annotated[
        str | None, typer.Option(metavar="REGEX", help="All of the answer is to match this.")
    ] = None,
    grammar: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The answer is to follow this grammar (Lark).")
    ] = None,
    tools: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON list of functions that the model is told of."),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="PROMPT goes to the model as it is, without chat template.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Served name. Default: what is served.")
    ] = None,
    request_id: Annotated[str | None, typer.Option(metavar="ID", help="Idempotency key.")] = None,
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Whose request this is.")] = None,
    cache_scope: Annotated[
        CacheScope | None, typer.Option(help="Who shares its cache entries. Default: as set for the tenant.")
    ] = None,
    cache_salt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only requests with the same one share cache entries.")
    ] = None,
    priority: Annotated[int | None, typer.Option(metavar="N", help="-10 to 10, higher first.")] = None,
    deadline: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Seconds until the last token.")
    ] = None,
    resumable: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Go on after a lost connection, for so many seconds."),
    ] = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
    name: NameOption = DEFAULT_NAME,
    state_dir: StateDirOption = None,
) -> None:
    """Streams the answer to PROMPT, about pictures if any are given."""
    from elasticmm_client import GenerateOptions

    options = GenerateOptions(ignore_eos=ignore_eos)
    given: dict[str, Any] = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "min_p": min_p,
        "presence_penalty": presence_penalty,
        "frequency_penalty": frequency_penalty,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
        "logprobs": logprobs,
        "stop": stop,
        "stop_token_ids": stop_token_id,
        "logit_bias": read_biases(logit_bias),
        "format": read_format(json_object=json_object, json_schema=json_schema, regex=regex, grammar=grammar),
        "tools": read_tools(tools),
        "model": model,
        "request_id": request_id,
        "tenant": tenant,
        "cache_scope": None if cache_scope is None else cache_scope.value,
        "cache_salt": cache_salt,
        "priority": priority,
        "deadline_s": deadline,
        "resumable_s": resumable,
    }
    options.update({key: value for key, value in given.items() if value is not None})  # type: ignore[typeddict-item]
    text = sys.stdin.read() if prompt == "-" else prompt
    if raw:
        if image or system is not None:
            fail("--raw: there is no place for --image or --system", USAGE)
        options["prompt"] = text
    messages = [] if raw else build_messages(text, image or [], system)
    endpoint = endpoint_of(name, state_dir, address, as_json=as_json)
    with client_of(endpoint, as_json=as_json) as client:
        answer(client, messages, options, as_json=as_json)


def build_messages(prompt: str, images: list[str], system: str | None) -> list[dict[str, Any]]:
    """The chat; exits 2 where a picture file is missing."""
    from elasticmm_client import user_message

    check_pictures(images)
    first = [{"role": "system", "content": system}] if system is not None else []
    return [*first, user_message(prompt, *images)]


def check_pictures(images: Iterable[str]) -> None:
    """Exits 2 where a file is missing."""
    from elasticmm_client.pictures import is_url

    for image in images:
        if not is_url(image) and not Path(image).is_file():
            fail(f"--image: no such file: {image}", USAGE)


def answer(client: Any, messages: list[dict[str, Any]], options: GenerateOptions, *, as_json: bool) -> None:
    """Prints text as it comes, or the whole result as JSON. Ctrl-C cancels the request."""
    try:
        with client.generate(messages, **options) as stream:
            if as_json:
                print_json(result_json(stream.result()))
            else:
                print_text(stream)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def print_text(stream: Stream) -> None:
    has_text = False
    for event in stream:
        if event.text:
            sys.stdout.write(event.text)
            sys.stdout.flush()
            has_text = True
    if has_text:
        print()


def result_json(result: GenerateResult) -> dict[str, Any]:
    """Everything known of the answer; log probabilities only where asked for."""
    values = dataclasses.asdict(result)
    if not result.logprobs:
        del values["logprobs"]
    return values
