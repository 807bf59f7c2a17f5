"""Waiting for free blocks, in order of arrival, those who give way behind the others."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field
from itertools import islice

from kv_transfer.blocks import BlockAllocator, OutOfBlocks


@dataclass(slots=True, eq=False)
class _Waiter:
    count: int
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class Room:
    """Hands a pool's blocks to waiting transfers, first come first served.

    Where blocks are short, those who could do without some are asked for what all wait for at once: they may
    answer no sooner than after a step of the engine.

    Used on the loop it was made on; blocks may become free in any thread.
    """

    def __init__(self, blocks: BlockAllocator) -> None:
        self._blocks = blocks
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Waiter] = deque()
        self._num_ahead = 0  # of those who wait: who gives no way
        self._has_asked = False
        blocks.call_on_free(self._blocks_freed)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    async def take(self, count: int, *, gives_way: bool = False) -> list[int]:
        """Waits until `count` blocks are free and it is this caller's turn; who `gives_way` lets all others
        go first.

        Raises OutOfBlocks if the pool can never hold that many.
        """
        if count > self._blocks.num_blocks:
            raise OutOfBlocks(f"{count} blocks wanted, the pool has {self._blocks.num_blocks}")
        waiter = _Waiter(count)
        self._waiting.insert(len(self._waiting) if gives_way else self._num_ahead, waiter)
        self._num_ahead += not gives_way
        try:
            while True:
                taken = self._try(waiter)
                if taken is not None:
                    return taken
                await waiter.wake.wait()
                waiter.wake.clear()
        finally:
            self._waiting.remove(waiter)
            self._num_ahead -= not gives_way
            if self._waiting:
                self._wake_first()
            elif self._has_asked:
                self._has_asked = False
                self._blocks.ask_for(0)

    def _try(self, waiter: _Waiter) -> list[int] | None:
        if self._waiting[0] is not waiter:
            return None
        try:
            return self._blocks.allocate(waiter.count)
        except OutOfBlocks:  # the engine may be faster, too
            self._has_asked = True
            self._blocks.ask_for(sum(each.count for each in islice(self._waiting, max(1, self._num_ahead))))
            return None

    def _blocks_freed(self) -> None:
        if self._waiting:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._wake_first)

    def _wake_first(self) -> None:
        if self._waiting:
            self._waiting[0].wake.set()
