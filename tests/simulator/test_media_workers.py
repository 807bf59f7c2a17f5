"""Threads that decode pictures: by hand, and against those of a stage server."""

from __future__ import annotations

import asyncio
import random
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest

from coordinator.policy.expectation import OutputExpectation
from core.costs import EncodeCosts
from core.encode_order import SLICE_S, EncodeOrder, rank
from core.lifecycle import RequestState
from simulator.events import Events
from simulator.intake import Intake
from simulator.job import Job
from simulator.media_workers import MediaWorkers, Ticket
from simulator.workload.request import Picture, Request
from stage_servers.encoding.workers import MediaWorkers as LiveWorkers
from tests.simulator.profiles import ROUND
from tests.stage_servers.part import until

COSTS = EncodeCosts(fixed_s=0.0, per_token_s=0.0, per_pixel_s=1e-6)


def job_of(*pixels: int) -> Job:
    """A picture of so many pixels takes as many microseconds."""
    pictures = tuple(Picture(each, 1, 10) for each in pixels)
    request = Request("album", 0.0, 50, 3, 3, pictures, "picture")
    work = Intake(ROUND, OutputExpectation(3)).work(request)
    return Job(request, work, 0)


@dataclass
class Rig:
    count: int = 2
    order: EncodeOrder = "shortest"
    keeps_one: bool = True
    events: Events = field(default_factory=Events)
    ended: list[tuple[int, float]] = field(default_factory=list)  # items and when

    def run(self, job: Job) -> list[tuple[int, float]]:
        """All of a job's pictures at once."""
        workers = MediaWorkers(
            self.count, COSTS, self.order, self.events, self._note, keeps_one=self.keeps_one
        )
        for index in range(len(job.work.media)):
            workers.add((job, index, job.attempt))
        self.events.run()
        return self.ended

    def _note(self, ticket: Ticket, asked_s: float) -> None:
        assert asked_s == 0.0
        self.ended.append((ticket[1], round(self.events.time_s * 1e3)))


def test_large_items_leave_a_thread_to_small_ones() -> None:
    assert Rig().run(job_of(20_000, 30_000, 5_000)) == [(2, 5), (0, 20), (1, 50)]
    assert Rig(count=1).run(job_of(20_000, 5_000)) == [(0, 20), (1, 25)]


def test_where_none_is_kept_large_items_take_all_threads() -> None:
    assert Rig(keeps_one=False).run(job_of(20_000, 30_000)) == [(0, 20), (1, 30)]


def test_the_shortest_goes_next_or_the_first_that_came() -> None:
    items = job_of(9_000, 8_000, 7_000, 3_000)
    assert [index for index, _ in Rig(count=1).run(items)] == [0, 3, 2, 1]
    assert [index for index, _ in Rig(count=1, order="arrival").run(items)] == [0, 1, 2, 3]


def test_what_is_not_wanted_any_more_takes_no_thread() -> None:
    rig, gone, wanted = Rig(count=1), job_of(9_000, 9_000), job_of(4_000)
    workers = MediaWorkers(1, COSTS, "shortest", rig.events, rig._note)
    for ticket in ((gone, 0, 0), (gone, 1, 0), (wanted, 0, 0)):
        workers.add(ticket)
    gone.go(RequestState.CANCELLED)
    rig.events.run()
    assert rig.ended == [(0, 9), (0, 13)]


@pytest.mark.parametrize("order", ["shortest", "arrival"])
@pytest.mark.parametrize("seed", range(4))
async def test_items_begin_when_those_of_a_stage_server_do(seed: int, order: EncodeOrder) -> None:
    """The live ones are let end one by one, in the simulator's order."""
    rng = random.Random(seed)
    pixels = [rng.choice((4_000, 9_000, 21_000, 33_000)) + 1000 * place for place in range(10)]
    seconds = [each * 1e-6 for each in pixels]
    ended = Rig(order=order).run(job_of(*pixels))
    begun_ms = {index: end_ms - pixels[index] // 1000 for index, end_ms in ended}
    live = LiveItems(seconds, order)
    try:
        for index, end_ms in ended:
            await live.end(index)
            await live.has_begun({each for each, at in begun_ms.items() if at <= end_ms})
        await until(lambda: not live.workers.num_busy)
        assert live.begun == set(range(len(pixels)))
    finally:
        live.close()


class LiveItems:
    """Numbers as items; each blocks its thread until it is let end."""

    def __init__(self, seconds: list[float], order: EncodeOrder) -> None:
        def rank_of(index: Any) -> tuple[float, int]:
            return rank(seconds[index], 0.0, order), index

        def is_large(index: Any) -> bool:
            return seconds[index] > SLICE_S

        self.workers = LiveWorkers(2, rank=rank_of, is_large=is_large)
        self.begun: set[int] = set()
        self._let_go = [threading.Event() for _ in seconds]
        self._tasks = [asyncio.create_task(self._run(index)) for index in range(len(seconds))]

    async def has_begun(self, expected: set[int]) -> None:
        await until(lambda: self.begun == expected)

    async def end(self, index: int) -> None:
        await until(lambda: index in self.begun)
        self._let_go[index].set()
        await self._tasks[index]

    def close(self) -> None:
        for event in self._let_go:
            event.set()
        self.workers.close()

    async def _run(self, index: Any) -> None:
        def work() -> None:
            self.begun.add(index)
            assert self._let_go[index].wait(60)

        await self.workers.run(index, work)
