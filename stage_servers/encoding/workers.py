"""The bounded number of threads that decode and preprocess."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from stage_servers.encoding.gate import Gate
from stage_servers.encoding.item import MediaItem

T = TypeVar("T")


class MediaWorkers:
    """Where there are several, large items leave one of them to small ones."""

    def __init__(
        self, count: int, *, rank: Callable[[MediaItem], Any], is_large: Callable[[MediaItem], bool]
    ) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="media")
        self._threads = _Threads(count, is_large)
        self._gate = Gate(self._threads, rank=rank, is_large=is_large)

    @property
    def num_busy(self) -> int:
        return self._threads.num_busy

    async def run(self, item: MediaItem, work: Callable[[], T]) -> T:
        """What `work` returns or raises. After a cancel its thread counts as busy until it is through."""
        await self._gate.enter(item)
        loop = asyncio.get_running_loop()
        running = self._executor.submit(work)

        def leave(_: Future[T]) -> None:
            loop.call_soon_threadsafe(self._gate.leave, item)

        running.add_done_callback(leave)
        return await asyncio.wrap_future(running)

    def close(self) -> None:
        """Waits for work under way; what has not begun is dropped."""
        self._executor.shutdown(wait=True, cancel_futures=True)


class _Threads:
    def __init__(self, count: int, is_large: Callable[[MediaItem], bool]) -> None:
        self._count = count
        self._is_large = is_large
        self._busy: dict[MediaItem, bool] = {}  # whether it was large when it was let in

    @property
    def num_busy(self) -> int:
        return len(self._busy)

    def take(self, item: MediaItem) -> bool:
        is_large = self._is_large(item)
        most = max(1, self._count - 1) if is_large else self._count
        num_busy = sum(self._busy.values()) if is_large else len(self._busy)
        if num_busy >= most or len(self._busy) >= self._count:
            return False
        self._busy[item] = is_large
        return True

    def give_back(self, item: MediaItem) -> None:
        del self._busy[item]
