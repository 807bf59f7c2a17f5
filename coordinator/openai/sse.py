"""Server-sent events over ASGI, bounded: a write waits until the client has read."""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json
from starlette.types import Send

from coordinator.listening.stalls import StallWatch

_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # or proxies would hold tokens back
)


class EventWriter:
    """`begin`, any number of `write`, `end`; raises StalledReaderError where nothing is read for too long."""

    def __init__(self, send: Send, stalled_s: float) -> None:
        self._send_unbounded = send
        self._watch = StallWatch(stalled_s)

    async def begin(self, request_id: str) -> None:
        headers = [*_HEADERS, (b"x-request-id", request_id.encode("ascii", "replace"))]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def write(self, payload: dict[str, Any]) -> None:
        await self._send_data(to_json(payload))

    async def end(self, *, is_done: bool) -> None:
        """Not done: the last event told of an error."""
        if is_done:
            await self._send_data(b"[DONE]")
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_data(self, data: bytes) -> None:
        body = b"data: " + data + b"\n\n"
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def _send(self, message: dict[str, Any]) -> None:
        await self._watch.run(self._send_unbounded(message))
