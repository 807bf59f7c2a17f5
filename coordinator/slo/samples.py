"""The newest of many values, kept in ascending order: quantiles of them need no sorting."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque


class NewestSamples:
    """Of `size` values; one more costs a search and a shift, not a sort."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._in_order: deque[float] = deque()  # of arrival
        self._ascending: list[float] = []

    def add(self, value: float) -> None:
        if len(self._in_order) == self._size:
            del self._ascending[bisect_left(self._ascending, self._in_order.popleft())]
        self._in_order.append(value)
        insort(self._ascending, value)

    def ascending(self) -> tuple[float, ...]:
        return tuple(self._ascending)
