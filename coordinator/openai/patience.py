"""HTTP connections whose clients are slow to say what they want, or never come to an end."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from coordinator.openai.errors import Fault

_MAX_HEAD_BYTES = 64 << 10


class PatientProtocol(HttpToolsProtocol):
    """Bounds a request's head in time, from its first byte or the connection's begin, and in size."""

    def __init__(self, *args: Any, head_s: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_s = head_s
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None  # runs while a head is awaited

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD_BYTES:
                reason = f"the request's head is over the limit of {_MAX_HEAD_BYTES} bytes"
                self._refuse(_refusal(431, reason))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._head_timer is None:
            self._await_head()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        self._refuse(_refusal(400, msg))

    def _await_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(self._head_s, self._give_up)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._refuse(_refusal(408, f"the request's head did not come within {self._head_s:g} s"))

    def _refuse(self, fault: Fault) -> None:
        """Without a word where an earlier request's answer is under way."""
        self._stop_waiting()
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(_response(fault))
        self.transport.close()


def _refusal(status: int, message: str) -> Fault:
    return Fault(status, message, "invalid_request_error")


def _response(fault: Fault) -> bytes:
    body = to_json(fault.body)
    own = {"content-type": "application/json", "content-length": len(body), "connection": "close"}
    head = [f"HTTP/1.1 {fault.status} {HTTPStatus(fault.status).phrase}"]
    head += [f"{name}: {value}" for name, value in (fault.headers | own).items()]
    return "\r\n".join([*head, "", ""]).encode() + body
