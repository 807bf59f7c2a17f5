"""An application whose requests are counted and timed."""

from __future__ import annotations

from collections.abc import Awaitable, Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coordinator.front.metrics import FrontMetrics
from core.clock import Clock

_NO_ANSWER = 499  # as nginx has it: the client went before there was a status


class WatchedApp:
    """ASGI. `paths` are told apart; all others are one, so that callers cannot make up names of series."""

    def __init__(self, app: ASGIApp, paths: Collection[str], metrics: FrontMetrics, clock: Clock) -> None:
        self._app = app
        self._paths = frozenset(paths)
        self._metrics = metrics
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["path"] in self._paths else "other"
        start_s, status, has_body = self._clock.now_s(), _NO_ANSWER, False

        def note(message: Message) -> Awaitable[None]:
            nonlocal status, has_body
            if not has_body:
                if message["type"] == "http.response.start":
                    status = message["status"]
                elif message.get("body"):
                    has_body = True
                    self._metrics.note_first_byte(path, self._clock.now_s() - start_s)
            return send(message)

        self._metrics.begin()
        try:
            await self._app(scope, receive, note)
        finally:
            self._metrics.end(path, status)
