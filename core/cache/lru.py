"""The least recently used goes first: the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from itertools import count

from core.cache.entry import Entry
from core.cache.eviction import EvictionOrder

_LEAST_STALE = 64  # items of a heap that are put up with


class Lru:
    """Needs to know nothing but when an entry was used."""

    def kind_of(self, keys: Sequence[bytes], num_found: int) -> int:  # noqa: ARG002
        return 0

    def note_use(self, entry: Entry, kind: int, now_s: float) -> None:
        """The entry itself says when it was used."""

    def make_order(self) -> EvictionOrder:
        return _Order()


class _Order:
    """A heap; what left it stays there until it comes up or is in the majority."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Entry]] = []
        self._ticks: dict[Entry, int] = {}  # the item of each entry that counts
        self._next_tick = count()

    def __len__(self) -> int:
        return len(self._ticks)

    def add(self, entry: Entry, now_s: float) -> None:  # noqa: ARG002
        tick = self._ticks[entry] = next(self._next_tick)
        heappush(self._heap, (entry.used_s, tick, entry))

    def discard(self, entry: Entry) -> None:
        self._ticks.pop(entry, None)
        if len(self._heap) > 2 * len(self._ticks) + _LEAST_STALE:
            self._heap = [item for item in self._heap if self._counts(item)]
            heapify(self._heap)

    def least(self, now_s: float) -> Entry | None:  # noqa: ARG002
        while self._heap and not self._counts(self._heap[0]):
            heappop(self._heap)
        return self._heap[0][2] if self._heap else None

    def _counts(self, item: tuple[float, int, Entry]) -> bool:
        return self._ticks.get(item[2]) == item[1]
