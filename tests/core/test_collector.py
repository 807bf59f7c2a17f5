"""Full collections happen while nothing runs."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from core.collector import collect_when_idle, settle_collector


class Node:
    """Holds itself: only a collection frees it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _collector_as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()
    gc.enable()


def test_no_full_collection_happens_by_itself() -> None:
    settle_collector()
    full = gc.get_stats()[2]["collections"]
    kept = [[number] for number in range(1_000_000)]
    assert gc.get_stats()[2]["collections"] == full
    assert gc.get_stats()[1]["collections"] > 0
    assert kept


@pytest.mark.parametrize(("is_idle", "longest_s"), [(True, 1e9), (False, 0.02)])
async def test_it_waits_for_an_idle_moment_but_not_for_ever(is_idle: bool, longest_s: float) -> None:
    gc.disable()
    node = Node()
    old = weakref.ref(node)
    gc.collect(1)  # the node is old from now on
    del node
    gc.collect(0)
    task = asyncio.create_task(collect_when_idle(lambda: is_idle, look_s=0.001, longest_s=longest_s))
    for _ in range(1000):
        if old() is None:
            break
        await asyncio.sleep(0.001)
    assert old() is None
    task.cancel()


async def test_a_busy_process_is_left_alone() -> None:
    gc.disable()
    full = gc.get_stats()[2]["collections"]
    gc.collect(0)
    task = asyncio.create_task(collect_when_idle(lambda: False, look_s=0.001, longest_s=1e9))
    await asyncio.sleep(0.05)
    assert gc.get_stats()[2]["collections"] == full
    task.cancel()
