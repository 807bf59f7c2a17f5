from __future__ import annotations

import pytest

from coordinator.policy.work import MediaWork, Work
from core.costs import EncodeCosts
from core.encode_order import EncodeOrder
from simulator.encode_queue import EncodeQueue
from simulator.job import Job
from simulator.workload.request import Picture, Request

COSTS = EncodeCosts(1e-3, 1e-5)  # 100 tokens in 2 ms, 4,000 in 41 ms: three slices


def job(*sizes: int) -> Job:
    request = Request("r", 0.0, 10, 5, 5, pictures=(Picture(8, 8),) * len(sizes))
    return Job(request, Work("r", 0.0, 10, 5, media=tuple(map(MediaWork, sizes))), 0)


def queue_of(*jobs: Job, order: EncodeOrder = "shortest") -> EncodeQueue:
    queue = EncodeQueue(COSTS, order)
    for each in jobs:
        for index in range(len(each.work.media)):
            queue.add(each, index, 0.0)
    return queue


def test_a_queue_has_work_until_the_last_part_is_taken() -> None:
    queue, taken = EncodeQueue(COSTS, "shortest"), []
    assert not queue.has_work
    assert queue.next() is None
    queue.add(job(4000), 0, 0.0)
    while queue.has_work:
        part = queue.next()
        assert part is not None
        taken.append(len(part.encoded))
        assert part.seconds == pytest.approx(COSTS.encode_s(4000) / 3)
    assert taken == [0, 0, 1]


@pytest.mark.parametrize("order", ["shortest", "arrival"])
def test_items_of_an_earlier_attempt_drop_out(order: EncodeOrder) -> None:
    gone, there = job(4000, 100), job(100)
    queue = queue_of(gone, there, order=order)
    gone.attempt += 1
    part = queue.next()
    assert part is not None
    assert [item.job for item in part.encoded] == [there]
    assert queue.next() is None
    assert not queue.has_work


def test_small_items_go_together_and_a_lone_one_alone() -> None:
    first, second = job(100, 100), job(200)
    queue = queue_of(first)
    together = queue.next()
    queue.add(second, 0, 0.0)
    alone = queue.next()
    assert together is not None
    assert alone is not None
    assert [item.place for item in together.encoded] == [0, 1]
    assert [item.job for item in alone.encoded] == [second]
