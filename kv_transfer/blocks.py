"""Which blocks of a pool are free, and how many hold on to each that is not."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from kv_transfer.free_runs import FreeRuns


class OutOfBlocks(RuntimeError):
    """Fewer blocks are free than were asked for."""


class BlockAllocator:
    """Reference counts over the blocks 0..num_blocks-1 of one pool.

    Called from the engine thread and from the transfer service's loop; every
    method is atomic. A block is free when nothing refers to it.
    """

    def __init__(self, num_blocks: int) -> None:
        if num_blocks < 1:
            raise ValueError("num_blocks: a pool needs at least one block")
        self.num_blocks = num_blocks
        self._refs = [0] * num_blocks
        self._free = FreeRuns(num_blocks)
        self._lock = threading.Lock()
        self._on_free: list[Callable[[], None]] = []
        self._when_short: list[Callable[[int], None]] = []

    @property
    def num_free(self) -> int:
        return self._free.num_free

    def call_on_free(self, callback: Callable[[], None]) -> None:
        """`callback` is called, in the releasing thread, after blocks became free; it must not block."""
        self._on_free.append(callback)

    def call_when_short(self, callback: Callable[[int], None]) -> None:
        """`callback` is called by `ask_for`, in its thread, with the number of blocks that are to be free; it
        must not block. For who holds blocks that it could do without.
        """
        self._when_short.append(callback)

    def ask_for(self, count: int) -> None:
        """Those who wait need so many blocks in all, 0: nobody waits any more; see `call_on_free`."""
        for callback in self._when_short:
            callback(count)

    def allocate(self, count: int, after: int | None = None) -> list[int]:
        """Takes `count` free blocks with one reference each, or none at all.

        Prefers the blocks that follow `after` (the last block of a growing
        sequence), else the lowest run of consecutive blocks that is long enough.

        Raises OutOfBlocks.
        """
        with self._lock:
            if count > self._free.num_free:
                raise OutOfBlocks(f"{count} blocks wanted, {self._free.num_free} of {self.num_blocks} free")
            taken = self._free.take(count, after)
            for block in taken:
                self._refs[block] = 1
            return taken

    def share(self, blocks: Iterable[int]) -> None:
        """Adds one reference to each of these blocks in use."""
        with self._lock:
            wanted = Counter(blocks)
            for block in wanted:
                self._check_used(block)
            for block, count in wanted.items():
                self._refs[block] += count

    def release(self, blocks: Sequence[int]) -> None:
        """Drops one reference per mention; raises ValueError, changing nothing, if that is too many."""
        has_freed = False
        with self._lock:
            for block, count in Counter(blocks).items():
                self._check_used(block, count)
            for block in blocks:
                self._refs[block] -= 1
                if self._refs[block] == 0:
                    self._free.add(block)
                    has_freed = True
        if has_freed:
            for callback in self._on_free:
                callback()

    def references(self, block: int) -> int:
        return self._refs[block]

    def check_integrity(self) -> None:
        """Raises AssertionError if free list and reference counts disagree."""
        with self._lock:
            free = [block for start, end in self._free for block in range(start, end)]
            if len(set(free)) != len(free):
                raise AssertionError("a block is free twice")
            if len(free) != self._free.num_free:
                raise AssertionError(f"{len(free)} blocks are free, {self._free.num_free} are counted")
            for block, refs in enumerate(self._refs):
                if refs < 0 or (refs == 0) != (block in self._free):
                    raise AssertionError(f"block {block}: {refs} references, free: {block in self._free}")

    def _check_used(self, block: int, count: int = 1) -> None:
        if not 0 <= block < self.num_blocks or self._refs[block] < count:
            raise ValueError(f"block {block} is not referred to {count} times")


def blocks_for(num_tokens: int, block_tokens: int) -> int:
    """Blocks that hold `num_tokens` tokens."""
    return -(-num_tokens // block_tokens)
