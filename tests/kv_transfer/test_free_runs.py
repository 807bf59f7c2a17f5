"""Free blocks are handed out in long runs, and every block is accounted for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kv_transfer.blocks import BlockAllocator
from kv_transfer.free_runs import FreeRuns


@given(order=st.permutations(range(12)))
def test_what_comes_back_in_any_order_is_one_run_again(order: list[int]) -> None:
    runs = FreeRuns(12)
    runs.take(12)
    for block in order:
        runs.add(block)
        assert block in runs
    assert list(runs) == [(0, 12)]


@given(
    taken=st.sets(st.integers(0, 19)),
    count=st.integers(0, 20),
    after=st.none() | st.integers(0, 19),
)
def test_takes_just_what_is_free(taken: set[int], count: int, after: int | None) -> None:
    runs = FreeRuns(20)
    runs.take(20)
    free = set(range(20)) - taken
    for block in free:
        runs.add(block)
    wanted = min(count, len(free))
    got = runs.take(wanted, after)
    assert len(got) == wanted
    assert set(got) <= free
    assert {block for block in range(20) if block in runs} == free - set(got)
    assert runs.num_free == len(free) - wanted


def test_lowest_run_that_is_long_enough_comes_first() -> None:
    allocator = BlockAllocator(10)
    allocator.allocate(10)
    allocator.release([1, 4, 5, 6, 8, 9])
    assert allocator.allocate(2) == [4, 5]
    assert allocator.allocate(2) == [8, 9]
    assert allocator.allocate(2) == [1, 6]


def test_a_growing_sequence_stays_consecutive() -> None:
    allocator = BlockAllocator(10)
    allocator.allocate(2)
    blocks = allocator.allocate(3)
    allocator.release([0, 1])
    assert allocator.allocate(1, after=blocks[-1]) == [5]
    assert allocator.allocate(1) == [0]


def test_whoever_waits_for_blocks_is_told() -> None:
    allocator = BlockAllocator(4)
    told: list[int] = []
    allocator.call_on_free(lambda: told.append(allocator.num_free))
    blocks = allocator.allocate(4)
    allocator.share(blocks)
    allocator.release(blocks)
    assert told == []
    allocator.release(blocks[:3])
    assert told == [3]
