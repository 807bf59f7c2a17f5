"""Clients that do not read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from coordinator.errors import StalledReaderError


class StallWatch:
    """Around the writes to one client, one at a time.

    A timeout of its own would arm and disarm a timer for every token; this one's timer runs out once in
    `stalled_s` at most, and then looks whether the write under way is the one that it was armed for.
    """

    def __init__(self, stalled_s: float) -> None:
        self._stalled_s = stalled_s
        self._loop = asyncio.get_running_loop()
        self._writing: asyncio.Task[object] | None = None
        self._num_cancels = 0  # that the writer knew of when it began
        self._since_s = 0.0
        self._is_armed = False
        self._has_stalled = False

    async def run(self, write: Awaitable[None]) -> None:
        """Raises StalledReaderError where the write takes too long."""
        task = asyncio.current_task()
        assert task is not None, "writes are done by tasks"
        self._writing, self._num_cancels, self._since_s = task, task.cancelling(), self._loop.time()
        if not self._is_armed:
            self._arm(self._stalled_s)
        try:
            await write
        except asyncio.CancelledError:
            if self._has_stalled and task.uncancel() <= self._num_cancels:
                raise StalledReaderError(f"nothing was read for {self._stalled_s:g} s") from None
            raise
        finally:
            self._writing = None

    def _arm(self, delay_s: float) -> None:
        self._is_armed = True
        self._loop.call_later(delay_s, self._look)

    def _look(self) -> None:
        self._is_armed = False
        if self._writing is None:
            return
        left_s = self._since_s + self._stalled_s - self._loop.time()
        if left_s > 0:
            self._arm(left_s)
        else:
            self._has_stalled = True
            self._writing.cancel()
