"""Reads lines, obeys commands, streams answers."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from cli.conversation.talk import Talk
from cli.exits import print_json
from elasticmm_client.errors import ElasticMMError, InvalidRequest, NotRunning

if TYPE_CHECKING:
    from elasticmm_client import Client, GenerateOptions, GenerateResult, Stream

HELP = (
    "/image PATH_OR_URL adds a picture to your next message, /reset forgets what was said, /quit ends; "
    "a line that ends with \\ goes on in the next"
)


def converse(
    client: Client, talk: Talk, options: GenerateOptions, *, is_terminal: bool, as_json: bool
) -> None:
    """Until /quit or the end of the input. Raises ElasticMMError; at a terminal a refused turn is only said.

    Ctrl-C stops the answer that is being made, and at the prompt ends the talk.
    """
    if is_terminal:
        _say(HELP)
    for line in whole_messages(_lines(is_terminal)):
        if line == "/quit":
            return
        if line.startswith("/"):
            with _refusals_said(is_terminal):
                obey(talk, line)
        elif line or talk.num_pictures:
            with _refusals_said(is_terminal):
                answer(client, talk, line, options, as_json=as_json)


def obey(talk: Talk, line: str) -> None:
    """Raises InvalidRequest for a picture that cannot be read and for what is no command."""
    command, _, rest = line.partition(" ")
    if command == "/image":
        talk.add_picture(rest.strip())
        _say(f"pictures with your next message: {talk.num_pictures}")
    elif command == "/reset":
        talk.reset()
        _say("all is forgotten")
    elif command == "/help":
        _say(HELP)
    else:
        raise InvalidRequest(f"is no command ({HELP})", field=command)


def answer(client: Client, talk: Talk, line: str, options: GenerateOptions, *, as_json: bool) -> None:
    """Streams it; a turn that is stopped or refused was never said. Raises ElasticMMError."""
    try:
        with client.generate(talk.ask(line), **options) as stream:
            if not as_json:
                _stream(stream)
            result = stream.result()
    except KeyboardInterrupt:
        _say("stopped; your message was taken back")
        return
    talk.answered(line, result.text)
    if as_json:
        from cli.generate import result_json

        print_json(result_json(result))
    else:
        _say(usage_line(result))


def usage_line(result: GenerateResult) -> str:
    """ "70 tokens in (16 cached, 1 pictures cached), 11 out, first after 100 ms, then 20.0 ms each"."""
    usage = result.usage
    cached = f", {usage.cached_media} pictures cached" if usage.cached_media else ""
    first = "" if result.ttft_ms is None else f", first after {result.ttft_ms:.0f} ms"
    later = "" if result.tpot_ms is None else f", then {result.tpot_ms:.1f} ms each"
    return (
        f"[{usage.prompt_tokens} tokens in ({usage.cached_tokens} cached{cached}), "
        f"{usage.completion_tokens} out{first}{later}]"
    )


def _stream(stream: Stream) -> None:
    for event in stream:
        sys.stdout.write(event.text)
        sys.stdout.flush()
    print(flush=True)


def whole_messages(lines: Iterable[str]) -> Iterator[str]:
    """Lines that a backslash ends are one with the next, without the white space around them."""
    begun: list[str] = []
    for line in lines:
        begun.append(line.removesuffix("\\"))
        if not line.endswith("\\"):
            yield "\n".join(begun).strip()
            begun.clear()
    if begun:
        yield "\n".join(begun).strip()


def _lines(is_terminal: bool) -> Iterator[str]:
    """Lines of a terminal may be edited."""
    if not is_terminal:
        yield from (line.rstrip("\r\n") for line in sys.stdin)
        return
    import readline  # noqa: F401  (input() takes it up)

    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            yield input("> ")


@contextlib.contextmanager
def _refusals_said(is_terminal: bool) -> Iterator[None]:
    """Somebody at a terminal can try again; a pipe cannot."""
    try:
        yield
    except ElasticMMError as error:
        if not is_terminal or isinstance(error, NotRunning):
            raise
        _say(str(error))


def _say(line: str) -> None:
    """Beside the answers, which alone go to the output."""
    print(line, file=sys.stderr, flush=True)
