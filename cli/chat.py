"""elasticmm chat: a conversation, with pictures, that remembers what was said."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.connection import client_of, endpoint_of
from cli.options import AddressOption, JsonOption, NameOption, StateDirOption
from cli.state import DEFAULT_NAME

if TYPE_CHECKING:
    from elasticmm_client import GenerateOptions


def run(
    *,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="System message.")] = None,
    image: Annotated[
        list[str] | None, typer.Option("--image", metavar="FILE", help="Of the first turn; repeatable.")
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", help="Most tokens of an answer. Default: up to the context length."),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(metavar="X", help="0 (default) takes the best token.")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Makes draws repeatable.")] = None,
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Whose requests these are.")] = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
    name: NameOption = DEFAULT_NAME,
    state_dir: StateDirOption = None,
) -> None:
    """Answers each line that you type, or that comes through a pipe; /help says what else.

    With --json, one object per answer.
    """
    from cli.conversation.talk import Talk
    from cli.conversation.turns import converse
    from cli.generate import check_pictures

    given = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed, "tenant": tenant}
    options: GenerateOptions = _given(given)
    check_pictures(image or ())
    talk = Talk(system)
    with client_of(endpoint_of(name, state_dir, address, as_json=as_json), as_json=as_json) as client:
        for each in image or ():
            talk.add_picture(each)
        converse(client, talk, options, is_terminal=sys.stdin.isatty(), as_json=as_json)


def _given(values: dict[str, Any]) -> Any:
    return {key: value for key, value in values.items() if value is not None}
