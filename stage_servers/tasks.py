"""The tasks that work on each dispatch of a request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator

from stage_servers.reports import Key

logger = logging.getLogger(__name__)


class TaskTable:
    """Tasks by key; one that raises is logged, for nobody waits for it."""

    def __init__(self) -> None:
        self._tasks: dict[Key, set[asyncio.Task[None]]] = {}

    def __iter__(self) -> Iterator[Key]:
        return iter(tuple(self._tasks))

    def spawn(self, key: Key, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.setdefault(key, set()).add(task)
        task.add_done_callback(lambda done: self._reap(key, done))

    async def cancel(self, key: Key) -> None:
        """Ends the key's tasks and waits for them; unknown keys are no error."""
        tasks = self._tasks.pop(key, set())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _reap(self, key: Key, task: asyncio.Task[None]) -> None:
        tasks = self._tasks.get(key)
        if tasks is not None:
            tasks.discard(task)
            if not tasks:
                del self._tasks[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("work on %s failed", key[0], exc_info=error)


async def call_for_ever(interval_s: float, *calls: Callable[[], None]) -> None:
    """Makes the calls again and again; one that raises is logged."""
    while True:
        await asyncio.sleep(interval_s)
        for call in calls:
            try:
                call()
            except Exception:
                logger.exception("a call that is made every %g s failed", interval_s)
