"""The HTTP server on its process's own loop."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from coordinator.listening.crowd import Crowd
from coordinator.openai.bounded import MAX_EXTRAS, BoundedProtocol

_BACKLOG = 1024


class HttpListener:
    """`open` listens at once, so that a taken port is known at start; `close` ends all connections."""

    def __init__(
        self, app: ASGIApp, grace_s: float, tls: ssl.SSLContext | None, head_s: float, crowd: Crowd
    ) -> None:
        """`head_s`: how long a request's head may take to come; `crowd` bounds connections."""
        extras = Crowd("extras", MAX_EXTRAS, crowd.setting)
        protocol = partial(BoundedProtocol, head_s=head_s, crowd=crowd, extras=extras)
        config = uvicorn.Config(
            app,
            http=cast("type[asyncio.Protocol]", protocol),
            lifespan="off",
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=max(1, round(grace_s)),
        )
        config.load()
        config.ssl = tls
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None

    def open(self, host: str, port: int, *, is_shared: bool = False) -> int:
        """The port, which may be shared with other processes that say so, too.

        Raises OSError if the address cannot be listened on.
        """
        listening = _listen(bind_socket(host, port, is_shared=is_shared))
        self._serving = asyncio.create_task(self._server.serve([listening]))
        return int(listening.getsockname()[1])

    async def close(self) -> None:
        if self._serving is not None:
            self._server.should_exit = True
            await self._serving


class _Server(uvicorn.Server):
    """Signals are the process's, not this server's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listen(bound: socket.socket) -> socket.socket:
    try:
        bound.listen(_BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound


def bind_socket(host: str, port: int, *, is_shared: bool = False) -> socket.socket:
    """Bound, and not listening yet. Raises OSError."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind)
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port}: {error}") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(address)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listening
