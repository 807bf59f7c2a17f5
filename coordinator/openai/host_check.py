"""Requests by a name that the door does not have are refused where it asks for no key."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from coordinator.access.hosts import HostNames
from coordinator.errors import MisdirectedError, ServiceError
from coordinator.openai.errors import fault_of
from coordinator.openai.generation import fault_response
from coordinator.openai.served import IsOpen

# Of probes, which call by whatever name; they say nothing that is worth to be kept from anybody.
_OPEN_PATHS = ("/health", "/ready")


class HostCheck:
    """Starlette's TrustedHostMiddleware knows fixed names only: no addresses, and no doors that get keys."""

    def __init__(self, app: ASGIApp, names: HostNames, is_open: IsOpen) -> None:
        self._app = app
        self._names = names
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = await self._refusal(scope)
        app = self._app if error is None else fault_response(fault_of(error, str))
        await app(scope, receive, send)

    async def _refusal(self, scope: Scope) -> ServiceError | None:
        """Who says no name, or is no HTTP, is no web page."""
        if scope["type"] != "http" or scope["path"] in _OPEN_PATHS:
            return None
        try:
            self._names.check(Headers(scope=scope).getlist("host"))
        except MisdirectedError as odd:
            try:
                return odd if await self._is_open() else None
            except ServiceError as error:
                return error
        return None
