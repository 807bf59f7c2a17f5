"""Taking turns where only so many may go at once, in order of arrival."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable


class Turns:
    """At most `limit` turns per key at a time; used on one loop. Keys without turns leave no trace."""

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError("limit: at least one turn at a time")
        self.limit = limit
        self._taken: dict[Hashable, int] = {}
        self._waiting: dict[Hashable, deque[asyncio.Future[None]]] = {}

    def num_waiting(self, key: Hashable) -> int:
        return len(self._waiting.get(key, ()))

    def try_take(self, key: Hashable) -> bool:
        """Takes a turn that `give_back` ends, if one is free; then nobody waits."""
        is_free = self._taken.get(key, 0) < self.limit
        if is_free:
            self._taken[key] = self._taken.get(key, 0) + 1
        return is_free

    async def take(self, key: Hashable) -> None:
        """As try_take, waiting if need be. A caller that is cancelled has no turn."""
        if self.try_take(key):
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.give_back(key)  # it came at that moment
            self._leave(key, turn)
            raise

    def give_back(self, key: Hashable) -> None:
        """The turn goes to whoever waits longest."""
        for turn in self._waiting.get(key, ()):
            if not turn.done():  # else its taker is leaving
                self._leave(key, turn)
                turn.set_result(None)
                return
        self._taken[key] -= 1
        if not self._taken[key]:
            del self._taken[key]

    def check_idle(self) -> None:
        """Raises AssertionError if a turn is taken or waited for."""
        if self._taken or self._waiting:
            raise AssertionError(f"turns taken: {self._taken}, waited for: {list(self._waiting)}")

    def _leave(self, key: Hashable, turn: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(key, deque())
        if turn in waiting:
            waiting.remove(turn)
            if not waiting:
                del self._waiting[key]
