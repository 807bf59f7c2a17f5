"""Tasks that wait to be let in somewhere, the best first. Event loop only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")
E_contra = TypeVar("E_contra", contravariant=True)


class Limit(Protocol[E_contra]):
    """What there is room for."""

    def take(self, entry: E_contra) -> bool:
        """Takes what the entry needs, or says that it has to wait."""
        ...

    def give_back(self, entry: E_contra) -> None: ...


class Gate(Generic[T]):
    """Lets entries in by their rank. Small and large ones wait apart: none is let in past a better one of its
    kind, and neither kind waits for room that only the other lacks.
    """

    def __init__(self, limit: Limit[T], *, rank: Callable[[T], Any], is_large: Callable[[T], bool]) -> None:
        self._limit = limit
        self._rank = rank
        self._is_large = is_large
        self._waiting: list[tuple[T, asyncio.Future[None]]] = []

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @asynccontextmanager
    async def inside(self, entry: T) -> AsyncIterator[None]:
        """Waits for its turn; gives back what it took when left."""
        await self.enter(entry)
        try:
            yield
        finally:
            self.leave(entry)

    async def enter(self, entry: T) -> None:
        """Cancelling takes it out of the line."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, turn))
        self._let_in()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting.remove((entry, turn))
                self._let_in()
            else:  # let in at the very moment
                self.leave(entry)
            raise

    def leave(self, entry: T) -> None:
        self._limit.give_back(entry)
        self._let_in()

    def _let_in(self) -> None:
        is_refused = {False: False, True: False}
        for each in sorted(self._waiting, key=lambda waiting: self._rank(waiting[0])):
            entry, turn = each
            is_large = self._is_large(entry)
            if turn.done() or is_refused[is_large]:
                continue
            if self._limit.take(entry):
                self._waiting.remove(each)
                turn.set_result(None)
            else:
                is_refused[is_large] = True
