"""The free blocks of a pool, kept as runs of consecutive ones."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterator


class FreeRuns:
    """Disjoint, non-touching runs [start, end) of free blocks, in order.

    Consecutive blocks are worth having: a view over them needs no copy, and a
    transfer of them is one copy. Not locked; the allocator does that.
    """

    def __init__(self, num_blocks: int) -> None:
        self._starts = [0]
        self._ends = {0: num_blocks}  # start of a run -> its end
        self.num_free = num_blocks

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((start, self._ends[start]) for start in self._starts)

    def __contains__(self, block: int) -> bool:
        index = bisect_right(self._starts, block) - 1
        return index >= 0 and block < self._ends[self._starts[index]]

    def take(self, count: int, after: int | None = None) -> list[int]:
        """Removes `count` blocks, which must be free in number, in as few runs as it can see.

        First what follows block `after` directly, then the lowest run that is long
        enough, else the longest runs.
        """
        taken: list[int] = []
        if after is not None and after + 1 in self._ends:
            taken += self._cut(after + 1, count)
        while len(taken) < count:
            wanted = count - len(taken)
            taken += self._cut(self._best_start(wanted), wanted)
        return taken

    def add(self, block: int) -> None:
        """Gives one block back, which must not be free, and joins it with its neighbours."""
        index = bisect_right(self._starts, block)
        start, end = block, block + 1
        if end in self._ends:
            end = self._ends.pop(end)
            del self._starts[index]
        if index > 0 and self._ends[self._starts[index - 1]] == block:
            start = self._starts[index - 1]
        else:
            insort(self._starts, block)
        self._ends[start] = end
        self.num_free += 1

    def _best_start(self, wanted: int) -> int:
        for start in self._starts:
            if self._ends[start] - start >= wanted:
                return start
        return max(self._starts, key=lambda start: self._ends[start] - start)

    def _cut(self, start: int, count: int) -> list[int]:
        """Takes up to `count` blocks off the front of the run at `start`."""
        index = bisect_right(self._starts, start) - 1
        end = self._ends.pop(start)
        cut = min(start + count, end)
        if cut == end:
            del self._starts[index]
        else:
            self._starts[index] = cut
            self._ends[cut] = end
        self.num_free -= cut - start
        return list(range(start, cut))
