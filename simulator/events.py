"""What happens next: a heap of calls in virtual time."""

from __future__ import annotations

import gc
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any


class Events:
    """A clock that jumps from one event to the next; those of one moment run in the order they were set.

    `time_s` is the virtual now, for the simulator's own loops; policies get it as an argument.
    """

    __slots__ = ("_count", "_heap", "time_s")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._count = 0
        self.time_s = 0.0

    def now_s(self) -> float:
        return self.time_s

    def at(self, when_s: float, call: Callable[[Any], None], argument: object = None) -> None:
        """Runs `call(argument)` then. Nothing is taken back: a call that finds itself outdated returns."""
        self._count = number = self._count + 1
        heappush(self._heap, (when_s, number, call, argument))

    def run(self) -> None:
        """Until nothing is left to happen. Events make no reference cycles: the collector rests meanwhile."""
        heap = self._heap
        was_on = gc.isenabled()
        gc.disable()
        try:
            while heap:
                self.time_s, _, call, argument = heappop(heap)
                call(argument)
        finally:
            if was_on:
                gc.enable()
