"""Which tenant has most, as it changes: a heap that is brought up to date when it is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush

_LEAST_STALE = 64  # items of the heap that are put up with


class Fullest:
    """Of those that count; whoever changes what a tenant has, or makes one count, notes it."""

    def __init__(self, bytes_of: Mapping[str, int], counts: Callable[[str], bool]) -> None:
        self._bytes_of = bytes_of
        self._counts = counts
        self._heap: list[tuple[int, str]] = []  # most bytes first; only the newest item of a tenant is true
        self._changed: set[str] = set()

    def note(self, tenant: str) -> None:
        self._changed.add(tenant)

    def note_all(self) -> None:
        self._changed.update(self._bytes_of)

    def tenant(self) -> str | None:
        """None where no tenant counts."""
        if len(self._heap) + len(self._changed) > 2 * len(self._bytes_of) + _LEAST_STALE:
            self._changed = set(self._bytes_of)
            self._heap.clear()
        items = [(-self._bytes_of[each], each) for each in self._changed if each in self._bytes_of]
        self._changed.clear()
        if len(items) > len(self._heap):
            self._heap += items
            heapify(self._heap)
        else:
            for item in items:
                heappush(self._heap, item)
        while self._heap and not self._is_true(*self._heap[0]):
            heappop(self._heap)
        return self._heap[0][1] if self._heap else None

    def _is_true(self, negative_bytes: int, tenant: str) -> bool:
        return self._bytes_of.get(tenant) == -negative_bytes and self._counts(tenant)
