"""HTTP connections past the bound: callers are told to come back, and probes are answered all the same."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from coordinator.listening.crowd import RETRY_AFTER_S, Crowd
from coordinator.openai.errors import Fault
from coordinator.openai.generation import fault_response
from coordinator.openai.patience import PatientProtocol

_PROBED = ("/health", "/ready", "/metrics")
MAX_EXTRAS = 64
_EXTRA_S = 10.0  # all that a connection past the bound gets


class BoundedProtocol(PatientProtocol):
    """Who finds no room in `crowd` may ask one thing in a short time, if there is room among `extras`."""

    def __init__(self, *args: Any, crowd: Crowd, extras: Crowd, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._crowd = crowd
        self._extras = extras
        self._place: Crowd | None = None
        self._ending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._place = next((each for each in (self._crowd, self._extras) if each.enter()), None)
        if self._place is None:
            self._crowd.refuse()
            self._refuse(_full(self._crowd))
        elif self._is_extra:
            self.app = _only_probes(self.app, self._crowd)
            self._ending = self.loop.call_later(_EXTRA_S, transport.abort)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self._is_extra:
            self.cycle.keep_alive = False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._place is not None:
            self._place.leave()
            self._place = None
        if self._ending is not None:
            self._ending.cancel()
        super().connection_lost(exc)

    @property
    def _is_extra(self) -> bool:
        return self._place is self._extras


def _only_probes(app: ASGIApp, crowd: Crowd) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in _PROBED:
            await app(scope, receive, send)
            return
        crowd.refuse()
        await fault_response(_full(crowd))(scope, receive, send)

    return answer


def _full(crowd: Crowd) -> Fault:
    message = f"this door has {crowd.most} connections, as many as it may ({crowd.setting})"
    return Fault(503, message, "service_unavailable_error", None, "too_many_connections", RETRY_AFTER_S)
