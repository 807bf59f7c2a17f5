"""Jobs on the same item share one work; each has its own end."""

from __future__ import annotations

import asyncio

import pytest
import torch

from core.sequence import CacheUse
from kv_transfer.sender import PeerAddress
from stage_servers.encode_once import EncodeOnce, Encoding, Obtained
from stage_servers.encode_stage import EncodeJob
from stage_servers.media_pull import MediaSource
from tests.stage_servers.cache.keeping import USE, Keeping, embedding, span

SOURCE = MediaSource(b"", 0, "", "", "")
PEER = PeerAddress("p", "", "", 1)


def job(request: int = 0, name: str = "a", use: CacheUse | None = USE) -> EncodeJob:
    return EncodeJob((f"r{request}", 0), SOURCE, span(name), PEER, use)


class Once:
    """Work that waits for `go`, and fails with `error`."""

    def __init__(self, *, num_blocks: int = 8) -> None:
        self.keeping = Keeping(num_blocks=num_blocks)
        self.once = EncodeOnce(self.keeping.cache, self.work)
        self.go = asyncio.Event()
        self.error: Exception | None = None
        self.num_works = 0
        self.num_given_up = 0

    async def work(self, _: EncodeJob) -> Encoding:
        self.num_works += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.num_given_up += 1
            raise
        if self.error is not None:
            raise self.error
        return Encoding(embedding(5), 2.0, 1.0)

    def start(self, *jobs: EncodeJob) -> list[asyncio.Task[Obtained]]:
        return [asyncio.create_task(self.once.obtain(each)) for each in jobs]

    async def obtain(self, job: EncodeJob) -> Obtained:
        self.go.set()
        return await self.once.obtain(job)

    def end(self, *results: Obtained) -> None:
        for each in results:
            assert torch.equal(each.held.embedding, embedding(5))
            each.held.release()
        self.once.check_idle()
        self.keeping.check()


async def started() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_twenty_jobs_encode_once() -> None:
    once = Once()
    tasks = once.start(*map(job, range(20)))
    await started()
    once.go.set()
    results = await asyncio.gather(*tasks)
    assert once.num_works == 1
    assert sorted(each.is_cached for each in results) == [False] + 19 * [True]
    assert sum(each.device_s for each in results) == 2.0
    assert len({each.held.embedding.data_ptr() for each in results}) == 1
    once.end(*results)


async def test_a_hit_works_on_nothing() -> None:
    once = Once()
    first, second = await once.obtain(job()), await once.obtain(job(1))
    assert (once.num_works, first.is_cached, second.is_cached) == (1, False, True)
    assert second.device_s == 0
    once.end(first, second)


@pytest.mark.parametrize("use", [None, CacheUse(b"o" * 32, "t")])
async def test_jobs_that_may_not_share_do_not(use: CacheUse | None) -> None:
    once = Once()
    tasks = once.start(job(), job(1, use=use))
    await started()
    once.go.set()
    results = await asyncio.gather(*tasks)
    assert once.num_works == 2
    assert not any(each.is_cached for each in results)
    once.end(*results)


async def test_jobs_without_cache_are_not_merged() -> None:
    once = Once()
    tasks = once.start(job(use=None), job(1, use=None))
    await started()
    once.go.set()
    once.end(*await asyncio.gather(*tasks))
    assert once.num_works == 2
    assert not once.keeping.cache.keys


@pytest.mark.parametrize("leaving", [0, 1])
async def test_the_work_goes_on_as_long_as_one_waits(leaving: int) -> None:
    once = Once()
    tasks = once.start(job(), job(1))
    await started()
    tasks[leaving].cancel()
    await asyncio.wait([tasks[leaving]])
    once.go.set()
    result = await tasks[1 - leaving]
    assert (once.num_works, once.num_given_up) == (1, 0)
    assert (result.is_cached, result.device_s) == (False, 2.0)
    once.end(result)


async def test_the_work_is_given_up_when_nobody_waits() -> None:
    once = Once()
    tasks = once.start(*map(job, range(3)))
    await started()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert once.num_given_up == 1
    once.end(await once.obtain(job(9)))
    assert once.num_works == 2


async def test_a_job_that_comes_after_all_left_begins_anew() -> None:
    once = Once()
    [left] = once.start(job())
    await started()
    left.cancel()
    [late] = once.start(job(1))
    await asyncio.wait([left])
    once.go.set()
    once.end(await late)
    assert (once.num_works, once.num_given_up) == (2, 1)


async def test_if_it_fails_all_fail_and_nothing_is_kept() -> None:
    once = Once()
    once.error = ValueError("no picture")
    tasks = once.start(*map(job, range(5)))
    await started()
    once.go.set()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert errors == 5 * [once.error]
    assert once.num_works == 1
    once.error = None
    once.end(await once.obtain(job(9)))


async def test_what_cannot_be_kept_is_shared_all_the_same() -> None:
    once = Once(num_blocks=1)
    tasks = once.start(*map(job, range(4)))
    await started()
    once.go.set()
    results = await asyncio.gather(*tasks)
    assert (once.num_works, once.keeping.cache.keys) == (1, [])
    once.end(*results)


async def test_who_is_cancelled_as_the_work_ends_leaves_nothing() -> None:
    once = Once()
    [task] = once.start(job())
    await started()
    once.go.set()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    once.end()
