"""A small HTTP listener that Prometheus scrapes, on the coordinator's own loop.

It answers GET and HEAD of /metrics and nothing else, one request a connection; what is asked for is read in
place, so that no thread looks at what the loop changes.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Any

from coordinator.access.hosts import HostNames
from coordinator.errors import MisdirectedError, NotAllowedError, ServiceError

log = logging.getLogger(__name__)

Headers = tuple[tuple[str, str], ...]  # names in lower case
Render = Callable[[str], tuple[str, bytes]]
Admit = Callable[[Headers, str], object]

_READ_TIMEOUT_S = 5.0
_MAX_HEAD_BYTES = 16 * 1024
_MAX_CONNECTIONS = 64
_PLAIN = "text/plain; charset=utf-8"
_LATER = "Retry-After: 5\r\n"


class MetricsListener:
    """`render` is given the Accept header and gives (content type, body); `admit` is given a request's
    headers and who sends it, and raises ServiceError where that one may not read.
    """

    def __init__(self, render: Render, admit: Admit) -> None:
        self._render = render
        self._admit = admit
        self._server: asyncio.Server | None = None
        self._num_open = 0

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """The port it listens on, in plain text where `tls` is None. Raises OSError where it cannot."""
        bounds: dict[str, Any] = {}
        if tls is not None:
            bounds = {"ssl_handshake_timeout": _READ_TIMEOUT_S, "ssl_shutdown_timeout": _READ_TIMEOUT_S}
        self._server = await asyncio.start_server(
            self._serve, host, port, limit=_MAX_HEAD_BYTES, ssl=tls, **bounds
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Harmless where it was not started."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._num_open += 1
        try:
            async with asyncio.timeout(_READ_TIMEOUT_S):
                if self._num_open > _MAX_CONNECTIONS:
                    writer.write(
                        _message("503 Service Unavailable", _PLAIN, b"too many connections\n", more=_LATER)
                    )
                    return
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head.decode("latin-1"), _peer_of(writer)))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            log.debug("metrics: a client sent no request, or took no answer")
        finally:
            writer.close()
            self._num_open -= 1

    def _answer(self, head: str, peer: str) -> bytes:
        first, *lines = head.split("\r\n")
        method, _, rest = first.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if method not in ("GET", "HEAD"):
            return _message("405 Method Not Allowed", _PLAIN, b"only GET and HEAD\n")
        if path != "/metrics":
            return _message("404 Not Found", _PLAIN, b"only /metrics is here\n")
        headers = _parse_headers(lines)
        try:
            self._admit(headers, peer)
        except ServiceError as error:
            return _refusal(error)
        try:
            content_type, body = self._render(dict(headers).get("accept", ""))
        except Exception:
            log.exception("metrics: cannot be rendered")
            return _message("500 Internal Server Error", _PLAIN, b"see the coordinator's log\n")
        return _message("200 OK", content_type, body, has_body=method == "GET")


def check_hosts(names: HostNames | None, headers: Headers) -> None:
    """Raises MisdirectedError where they name another door than these; None: it may be called anything."""
    if names is not None:
        names.check(value for name, value in headers if name == "host")


def _peer_of(writer: asyncio.StreamWriter) -> str:
    host, port, *_ = writer.get_extra_info("peername") or ("", 0)
    return f"{host}:{port}"


def _parse_headers(lines: list[str]) -> Headers:
    parted = (line.partition(":") for line in lines if line)
    return tuple((name.strip().lower(), value.strip()) for name, _, value in parted)


def _refusal(error: ServiceError) -> bytes:
    body = f"{error}\n".encode()
    if isinstance(error, NotAllowedError):
        return _message("403 Forbidden", _PLAIN, body)
    if isinstance(error, MisdirectedError):
        return _message("421 Misdirected Request", _PLAIN, body)
    return _message("401 Unauthorized", _PLAIN, body, more="WWW-Authenticate: Bearer\r\n")


def _message(status: str, content_type: str, body: bytes, *, has_body: bool = True, more: str = "") -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{more}"
        "Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (body if has_body else b"")
