"""The names that fields of the internal request have in a client's JSON."""

from __future__ import annotations

import re
from collections.abc import Callable

Param = Callable[[str], str]

_MESSAGE = re.compile(r"^(messages\[\d+\])\.(?:parts(\[\d+\])?(.*)|tool_calls(\[\d+\])\.(name|arguments))$")
_TOOL = re.compile(r"^tools(\[\d+\])(.*)$")


def chat_param(field: str) -> str:
    """ "messages[0].parts[1].image.url" is "messages[0].content[1].image_url.url" to a client."""
    if (found := _MESSAGE.match(field)) is not None:
        message, part, rest, call, function = found.groups()
        if call is not None:
            return f"{message}.tool_calls{call}.function.{function}"
        return f"{message}.content{part or ''}{_picture(rest)}"
    if (found := _TOOL.match(field)) is not None:
        return f"tools{found[1]}.function{found[2]}"
    if field.startswith("sampling.logprobs"):
        return "top_logprobs"
    return _common(field)


def forced_call_param(field: str) -> str:
    """Of a chat whose answer's form was made of its tools."""
    return "tools" if field.startswith("format") else chat_param(field)


def completion_param(field: str) -> str:
    """A prompt is all there is to be read."""
    return "prompt" if field.startswith(("prompt", "messages")) else _common(field)


def _picture(rest: str) -> str:
    return ".image_url.url" if rest.startswith(".image") else rest


def _common(field: str) -> str:
    if field.startswith("stop.strings"):
        return "stop"
    if field.startswith("stop.token_ids"):
        return field.replace("stop.", "stop_", 1)
    if field.startswith("format"):
        return "response_format"
    if field == "deadline":
        return "timeout"
    return field.removeprefix("sampling.").removeprefix("stop.")
