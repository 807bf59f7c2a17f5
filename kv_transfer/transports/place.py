"""A writer's place in a poller's line, and those who wait for it to leave."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

from kv_transfer.transports.poller import Poller, TurnWork


class Place:
    """Made on the loop that will wait; the poller's thread and the pushing one share the rest."""

    def __init__(self, poller: Poller, work: TurnWork) -> None:
        self._poller = poller
        self._work = work
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._is_taken = False
        self._waiting: list[asyncio.Event] = []

    @property
    def is_taken(self) -> bool:
        """Whether the work is in line or has its turn."""
        return self._is_taken

    def take(self) -> None:
        """Any thread; does nothing for work that is in line."""
        with self._lock:
            if self._is_taken:
                return
            self._is_taken = True
        self._poller.submit(self._work)

    def leave_unless(self, has_more: Callable[[], bool]) -> bool:
        """Whether the work leaves the line. In its turn; `has_more` is asked while nobody can take the place.

        So what comes after it said no finds the place free.
        """
        with self._lock:
            if has_more():
                return False
            self._is_taken = False
        self.tell()
        return True

    def tell(self) -> None:
        """Those who wait look again. Any thread."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for event in waiting:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(event.set)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for something that `tell` is called after."""
        while True:
            event = asyncio.Event()
            with self._lock:
                if condition():
                    return
                self._waiting.append(event)
            await event.wait()

    async def is_left_within(self, timeout_s: float) -> bool:
        """Waits until the work is out of the line, for so long at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.until(lambda: not self._is_taken)
        return not self._is_taken
