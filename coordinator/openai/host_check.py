"""Requests by a name that the door does not have are refused where it asks for no key."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from coordinator.access.hosts import HostNames
from coordinator.errors import ServiceError
from coordinator.openai.errors import Fault, fault_of
from coordinator.openai.generation import fault_response
from coordinator.openai.served import IsOpen

# Of probes, which call by whatever name; they say nothing that is worth to be kept from anybody.
_OPEN_PATHS = ("/health", "/ready")
_MAX_SHOWN_CHARS = 200


class HostCheck:
    """Starlette's TrustedHostMiddleware knows fixed names only: no addresses, and no doors that get keys."""

    def __init__(self, app: ASGIApp, names: HostNames, is_open: IsOpen) -> None:
        self._app = app
        self._names = names
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        odd = self._odd_name(scope)
        if odd is None:
            await self._app(scope, receive, send)
            return
        try:
            fault = _misdirected(odd) if await self._is_open() else None
        except ServiceError as error:
            fault = fault_of(error, str)
        await (self._app if fault is None else fault_response(fault))(scope, receive, send)

    def _odd_name(self, scope: Scope) -> str | None:
        """Browsers always say one name; who says none, or is no HTTP, is no web page."""
        if scope["type"] != "http" or scope["path"] in _OPEN_PATHS:
            return None
        said = Headers(scope=scope).getlist("host")
        return next((host for host in said if not self._names.allow(host)), None)


def _misdirected(host: str) -> Fault:
    message = (
        f"this door is not known as {host[:_MAX_SHOWN_CHARS]!r}: ask it by its address, or start it with "
        "that name allowed (--allow-host) or with API keys"
    )
    return Fault(421, message, "invalid_request_error", None, "host_not_allowed")
