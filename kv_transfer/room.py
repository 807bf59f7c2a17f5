"""Waiting for free blocks, in order of arrival, those who give way behind the others."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from kv_transfer.blocks import BlockAllocator, OutOfBlocks


class Room:
    """Hands a pool's blocks to waiting transfers, first come first served.

    Used on the loop it was made on; blocks may become free in any thread.
    """

    def __init__(self, blocks: BlockAllocator) -> None:
        self._blocks = blocks
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Event] = deque()
        self._num_ahead = 0  # of those who wait: who gives no way
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
        wake = asyncio.Event()
        self._waiting.insert(len(self._waiting) if gives_way else self._num_ahead, wake)
        self._num_ahead += not gives_way
        try:
            while True:
                taken = self._try(wake, count)
                if taken is not None:
                    return taken
                await wake.wait()
                wake.clear()
        finally:
            self._waiting.remove(wake)
            self._num_ahead -= not gives_way
            self._wake_first()

    def _try(self, wake: asyncio.Event, count: int) -> list[int] | None:
        if self._waiting[0] is not wake:
            return None
        try:
            return self._blocks.allocate(count)
        except OutOfBlocks:  # the engine may be faster, too
            self._blocks.ask_for(count)
            return None

    def _blocks_freed(self) -> None:
        if self._waiting:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._wake_first)

    def _wake_first(self) -> None:
        if self._waiting:
            self._waiting[0].set()
