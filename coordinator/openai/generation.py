"""The two calls that generate: a body in, an answer or a stream of events out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Generic, TypeVar

from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from coordinator.errors import ServiceError, StalledReaderError
from coordinator.openai.asked import Asked
from coordinator.openai.body import parse_body, read_body
from coordinator.openai.choices import Choices
from coordinator.openai.errors import BadRequestError, Fault, fault_of
from coordinator.openai.exchange import Exchange
from coordinator.openai.presence import while_there
from coordinator.openai.schema import CommonRequest
from coordinator.openai.served import Served, Visit
from coordinator.openai.sse import EventWriter
from coordinator.openai.token_texts import TokenTexts
from coordinator.tracing.parent import trace_parent

log = logging.getLogger(__name__)

R = TypeVar("R", bound=CommonRequest)

# Bodies above this are read by another thread, so that streams go on meanwhile.
_LARGE_BYTES = 256 << 10


class Generation(Generic[R]):
    """An ASGI application of one route."""

    def __init__(self, served: Served, schema: type[R], to_asked: Callable[[R, TokenTexts], Asked]) -> None:
        self._served = served
        self._schema = schema
        self._to_asked = to_asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            visit = await enter(request, self._served)
            asked = await self._read(request, visit)
        except ServiceError as error:
            await fault_response(fault_of(error, str))(scope, receive, send)
        except BadRequestError as error:
            await fault_response(error.fault)(scope, receive, send)
        except ClientDisconnect:
            return
        else:
            await while_there(receive, self._answer(asked, visit, scope, receive, send))

    async def _read(self, request: Request, visit: Visit) -> Asked:
        limit_bytes = body_limit(visit.description.message_bytes)
        body = await read_body(request, limit_bytes, self._served.stalled_s)
        name = request.headers.get("x-request-id")
        if len(body) > _LARGE_BYTES:
            asked = await asyncio.to_thread(self._understand, body, name, visit)
        else:
            asked = self._understand(body, name, visit)
        trace = trace_parent(request.headers.items())
        return replace(asked, calls=tuple(replace(call, trace=trace) for call in asked.calls))

    def _understand(self, body: bytes, name: str | None, visit: Visit) -> Asked:
        parsed = parse_body(body, self._schema)
        if name and parsed.request_id is None:
            parsed = parsed.model_copy(update={"request_id": name})
        return self._to_asked(parsed, visit.texts)

    async def _answer(self, asked: Asked, visit: Visit, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(asked)
        try:
            async with Choices(visit.generate, asked.calls) as choices:
                if asked.is_stream:
                    await exchange.begin(choices)
                    writer = EventWriter(send, self._served.stalled_s)
                    await _write_stream(exchange, choices, writer)
                    return
                whole = await exchange.collect(choices)
        except StalledReaderError as error:
            log.warning("request %s: %s", asked.name, error)
        except ServiceError as error:
            await fault_response(fault_of(error, asked.param))(scope, receive, send)
        else:
            headers = {"x-request-id": ascii_only(asked.name)}
            await Response(to_json(whole), 200, headers, "application/json")(scope, receive, send)


async def _write_stream(exchange: Exchange, choices: Choices, writer: EventWriter) -> None:
    """From the first event to the last; an error on the way is one, too, and nothing comes after it."""
    asked = exchange.asked
    await writer.begin(ascii_only(asked.name))
    try:
        for index in range(len(asked.calls)):
            if (choice := asked.answer.begin(index)) is not None:
                await writer.write(exchange.chunk(choice))
        while (found := await choices.next()) is not None:
            if (choice := exchange.choice_of(*found)) is not None:
                await writer.write(exchange.chunk(choice))
    except StalledReaderError:
        raise
    except ServiceError as error:
        await writer.write(fault_of(error, asked.param).body)
        await writer.end(is_done=False)
        return
    if asked.wants_usage:
        await writer.write(exchange.usage_chunk())
    await writer.end(is_done=True)


async def enter(request: Request, served: Served) -> Visit:
    """Raises what `served.Enter` raises."""
    peer = "" if request.client is None else f"{request.client.host}:{request.client.port}"
    return await served.enter(request.headers.get("authorization"), peer)


def fault_response(fault: Fault) -> Response:
    return Response(to_json(fault.body), fault.status, fault.headers, "application/json")


def body_limit(message_bytes: int) -> int:
    """Pictures are a third larger in base64."""
    return message_bytes * 4 // 3


def ascii_only(text: str) -> str:
    """Fit for a header."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text)
