"""A small HTTP listener that Prometheus scrapes, on the coordinator's own loop.

It answers GET and HEAD of /metrics and nothing else, one request a connection; what is asked for is read in
place, so that no thread looks at what the loop changes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

log = logging.getLogger(__name__)

Render = Callable[[str], tuple[str, bytes]]

_READ_TIMEOUT_S = 5.0
_MAX_HEAD_BYTES = 16 * 1024
_PLAIN = "text/plain; charset=utf-8"


class MetricsListener:
    """`render` is given the Accept header and gives (content type, body)."""

    def __init__(self, render: Render) -> None:
        self._render = render
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """The port it listens on. Raises OSError where it cannot."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=_MAX_HEAD_BYTES)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Harmless where it was not started."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_READ_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head.decode("latin-1")))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            log.debug("metrics: a client sent no request, or took no answer")
        finally:
            writer.close()

    def _answer(self, head: str) -> bytes:
        first, *lines = head.split("\r\n")
        method, _, rest = first.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if method not in ("GET", "HEAD"):
            return _message("405 Method Not Allowed", _PLAIN, b"only GET and HEAD\n")
        if path != "/metrics":
            return _message("404 Not Found", _PLAIN, b"only /metrics is here\n")
        try:
            content_type, body = self._render(_accepted(lines))
        except Exception:
            log.exception("metrics: cannot be rendered")
            return _message("500 Internal Server Error", _PLAIN, b"see the coordinator's log\n")
        return _message("200 OK", content_type, body, has_body=method == "GET")


def _accepted(lines: list[str]) -> str:
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip().lower() == "accept":
            return value.strip()
    return ""


def _message(status: str, content_type: str, body: bytes, *, has_body: bool = True) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (body if has_body else b"")
