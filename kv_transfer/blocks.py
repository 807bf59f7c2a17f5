"""Which blocks of a pool are free, and how many hold on to each that is not."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Sequence


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
        self._free = list(range(num_blocks - 1, -1, -1))
        self._lock = threading.Lock()

    @property
    def num_free(self) -> int:
        return len(self._free)

    def allocate(self, count: int) -> list[int]:
        """Takes `count` free blocks with one reference each, or none at all.

        Raises OutOfBlocks.
        """
        with self._lock:
            if count > len(self._free):
                raise OutOfBlocks(f"{count} blocks wanted, {len(self._free)} of {self.num_blocks} free")
            taken = [self._free.pop() for _ in range(count)]
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
        with self._lock:
            for block, count in Counter(blocks).items():
                self._check_used(block, count)
            for block in blocks:
                self._refs[block] -= 1
                if self._refs[block] == 0:
                    self._free.append(block)

    def references(self, block: int) -> int:
        return self._refs[block]

    def check_integrity(self) -> None:
        """Raises AssertionError if free list and reference counts disagree."""
        with self._lock:
            free = set(self._free)
            if len(free) != len(self._free):
                raise AssertionError("a block is free twice")
            for block, refs in enumerate(self._refs):
                if refs < 0 or (refs == 0) != (block in free):
                    raise AssertionError(f"block {block}: {refs} references, free: {block in free}")

    def _check_used(self, block: int, count: int = 1) -> None:
        if not 0 <= block < self.num_blocks or self._refs[block] < count:
            raise ValueError(f"block {block} is not referred to {count} times")


def blocks_for(num_tokens: int, block_tokens: int) -> int:
    """Blocks that hold `num_tokens` tokens."""
    return -(-num_tokens // block_tokens)
