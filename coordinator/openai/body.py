"""A request's body: read up to a limit, and made into a record that fits the schema."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from coordinator.checks.counts import MAX_VALUES
from coordinator.openai.errors import BadRequestError

R = TypeVar("R", bound=BaseModel)

# Fields that OpenAI has, and that this model or server has nothing for.
_UNSUPPORTED = frozenset(
    {
        "audio",
        "function_call",
        "functions",
        "prediction",
        "reasoning_effort",
        "verbosity",
        "web_search_options",
    }
)
_MAX_SHOWN_CHARS = 200
_MAX_REASON_CHARS = 500
_MIN_BYTES_PER_S = 1024


async def read_body(request: Request, limit_bytes: int, stalled_s: float) -> bytes:
    """Raises BadRequestError for one that is too large, no JSON by its type, or too slow.

    Too slow: nothing comes for `stalled_s`, or by so much less than 1 KiB/s comes.
    """
    # Also what has no type: browsers send that, forms and plain text for any page without asking first.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise BadRequestError(
            f"the content type has to be application/json, not {kind[:_MAX_SHOWN_CHARS]!r}", status=415
        )
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > limit_bytes:
        raise _too_large(limit_bytes)
    body = bytearray()
    began_s = asyncio.get_running_loop().time()
    while True:
        due_s = began_s + stalled_s + len(body) / _MIN_BYTES_PER_S
        message = await _next_message(request, stalled_s, due_s)
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > limit_bytes:
            raise _too_large(limit_bytes)
        if not message.get("more_body", False):
            return bytes(body)


def parse_body(body: bytes, schema: type[R]) -> R:
    """Raises BadRequestError naming the first field that does not fit."""
    # Every value may be an error to write down, at a hundred times its size in the body.
    if body.count(b",") > MAX_VALUES:
        raise BadRequestError("the body has too many values", code="too_large", status=413)
    try:
        return schema.model_validate_json(body)
    except ValidationError as error:
        # Of a union's members the one that fits furthest is meant.
        found = max(error.errors(include_url=False, include_input=False), key=lambda each: len(each["loc"]))
    if found["type"] == "json_invalid":
        raise BadRequestError(f"the body is no JSON: {found['msg']}", code="invalid_json")
    param = _path(from_json(body), found["loc"], found["type"])
    raise _refusal(found["type"], param, found["msg"][:_MAX_REASON_CHARS])


def _refusal(kind: str, param: str, reason: str) -> BadRequestError:
    if kind != "extra_forbidden":
        return BadRequestError(f"{param or 'body'}: {reason}", param=param or None, code="invalid_value")
    if param in _UNSUPPORTED:
        return BadRequestError(f"{param}: is not supported here", param=param, code="unsupported_parameter")
    return BadRequestError(f"{param}: is no parameter known here", param=param, code="unknown_parameter")


def _path(value: Any, loc: tuple[int | str, ...], kind: str) -> str:
    """As a client would write it: messages[0].content[1].text.

    The library names unions' members in between; what is not in the client's JSON is such a name.
    """
    path = ""
    for depth, step in enumerate(loc):
        is_missing = kind == "missing" and depth == len(loc) - 1
        if isinstance(step, int):
            path += f"[{step}]"
            value = value[step] if isinstance(value, list) and step < len(value) else None
        elif is_missing or (isinstance(value, dict) and step in value):
            path += f".{step}" if path else step
            value = None if is_missing else value[step]
    return path[:_MAX_SHOWN_CHARS]


async def _next_message(request: Request, stalled_s: float, due_s: float) -> Any:
    """`due_s`: by the loop's clock, when the next must have come whatever came lately."""
    now_s = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout_at(min(now_s + stalled_s, due_s)) as stalled:
            return await request.receive()
    except TimeoutError:
        if not stalled.expired():
            raise
        reason = f"the body comes too slowly, or nothing of it came for {stalled_s:g} s"
        raise BadRequestError(reason, status=408) from None


def _too_large(limit_bytes: int) -> BadRequestError:
    return BadRequestError(f"the body is over the limit of {limit_bytes} bytes", code="too_large", status=413)
