"""Decoding and preprocessing take a bounded number of threads, small pictures first."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from stage_servers.encoding.item import MediaItem
from stage_servers.encoding.workers import MediaWorkers
from tests.stage_servers.encoding.items import is_large, media_item
from tests.stage_servers.part import until

LARGE = 1000


class Work:
    """Blocks until it is let go on; remembers what began."""

    def __init__(self, count: int) -> None:
        self.workers = MediaWorkers(count, rank=lambda item: item.num_tokens, is_large=is_large)
        self.begun: list[int] = []
        self.go_on = threading.Event()

    def start(self, *sizes: int) -> list[asyncio.Task[int]]:
        return [
            asyncio.create_task(self.workers.run(item, self._of(item))) for item in map(media_item, sizes)
        ]

    def _of(self, item: MediaItem):  # type: ignore[no-untyped-def]
        def work() -> int:
            self.begun.append(item.num_tokens)
            assert self.go_on.wait(60)
            return item.num_tokens

        return work


@pytest.fixture
async def work() -> AsyncIterator[Work]:
    made = Work(2)
    yield made
    made.go_on.set()
    made.workers.close()


async def test_no_more_run_than_there_are_threads_and_the_smallest_goes_next(work: Work) -> None:
    tasks = work.start(5, 6, 9, 7, 8)
    await until(lambda: len(work.begun) == 2)
    assert work.workers.num_busy == 2
    work.go_on.set()
    assert await asyncio.gather(*tasks) == [5, 6, 9, 7, 8]
    assert sorted(work.begun[:2]) == [5, 6]
    assert sorted(work.begun[2:4]) == [7, 8]
    await until(lambda: not work.workers.num_busy)


async def test_large_ones_leave_a_thread_to_small_ones(work: Work) -> None:
    tasks = work.start(LARGE, LARGE + 1, LARGE + 2)
    await until(lambda: work.begun == [LARGE])
    tasks += work.start(5)
    await until(lambda: work.begun == [LARGE, 5])
    work.go_on.set()
    await asyncio.gather(*tasks)


async def test_a_cancelled_one_keeps_its_thread_until_it_is_through(work: Work) -> None:
    (task,) = work.start(5)
    await until(lambda: work.begun)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert work.workers.num_busy == 1
    work.go_on.set()
    await until(lambda: not work.workers.num_busy)


async def test_what_work_raises_reaches_the_caller(work: Work) -> None:
    with pytest.raises(ZeroDivisionError):
        await work.workers.run(media_item(1), lambda: 1 // 0)
    await until(lambda: not work.workers.num_busy)
