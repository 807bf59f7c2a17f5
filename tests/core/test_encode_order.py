"""What a device encodes next: small before large, nothing starves, and nothing holds others up for long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from core.encode_order import AGING, MOST_WASTE, EncodeOrder, EncodeSchedule, Slice

TOKEN_S, SLICE_S = 0.001, 0.02


@dataclass(eq=False)
class Item:
    num_tokens: int
    arrived_s: float = 0.0
    place: int = 0


def schedule(*items: Item, order: EncodeOrder = "shortest", **changes: object) -> EncodeSchedule[Item]:
    settings = {"most_tokens": 100, "slice_s": SLICE_S, "order": order, **changes}
    made: EncodeSchedule[Item] = EncodeSchedule(lambda tokens: tokens * TOKEN_S, **settings)  # type: ignore[arg-type]
    for item in items:
        made.add(item)
    return made


def drain(made: EncodeSchedule[Item]) -> list[Slice[Item]]:
    return list(iter(made.next, None))  # type: ignore[arg-type]


def test_small_ones_go_together_up_to_a_slice() -> None:
    small = [Item(8), Item(6), Item(4), Item(9)]
    assert [set(part.items) for part in drain(schedule(*small))] == [set(small[:3]), {small[3]}]


def test_a_batch_is_bounded_by_tokens() -> None:
    small = [Item(4), Item(4), Item(4)]
    assert [len(part.items) for part in drain(schedule(*small, most_tokens=8))] == [2, 1]


def test_a_large_one_goes_in_equal_slices() -> None:
    large = Item(90)
    parts = drain(schedule(large))
    assert [(part.items, part.number, part.count) for part in parts] == [((large,), n, 5) for n in range(5)]
    assert [part.is_last for part in parts] == [False] * 4 + [True]


def test_a_small_one_that_comes_during_a_large_one_is_done_before_it() -> None:
    large, small = Item(90), Item(5, arrived_s=0.01)
    made = schedule(large)
    first = made.next()
    made.add(small)
    assert first is not None
    assert [part.items[0] for part in (first, *drain(made))] == [large, small, large, large, large, large]


def test_one_large_one_is_on_the_device_at_a_time() -> None:
    long, short = Item(90), Item(30, arrived_s=0.01)
    made = schedule(long)
    made.next()
    made.add(short)
    assert [part.items[0] for part in drain(made)] == [long] * 4 + [short] * 2


def test_equal_items_of_a_request_go_in_order_of_the_prompt() -> None:
    items = [Item(50, place=place) for place in (2, 0, 1)]
    assert [part.items[0].place for part in drain(schedule(*items)) if part.is_last] == [0, 1, 2]


def test_by_arrival_nothing_is_cut_or_passed() -> None:
    items = [Item(90, 0.0), Item(5, 0.1), Item(30, 0.2)]
    assert [part.items for part in drain(schedule(*items, order="arrival"))] == [
        tuple(items[:2]),
        (items[2],),
    ]


def test_what_is_dropped_is_not_encoded() -> None:
    large, small, waiting = Item(90), Item(5), Item(50)
    made = schedule(large, waiting)
    made.add(small)
    assert made.next() == Slice((small,))
    begun = made.next()
    assert begun is not None
    for item in (*begun.items, waiting, large, small):
        made.drop(item)
    assert not made.has_work
    assert made.next() is None


def as_the_largest(sizes: Sequence[int]) -> int:
    return max(sizes) * len(sizes)


@given(st.lists(st.integers(1, 10), min_size=1, max_size=12))
def test_padding_wastes_a_bounded_part(sizes: list[int]) -> None:
    parts = drain(schedule(*map(Item, sizes), padded=as_the_largest))
    for part in parts:
        tokens = [item.num_tokens for item in part.items]
        assert sum(tokens) >= (1 - MOST_WASTE) * as_the_largest(tokens)
    assert sorted(item.num_tokens for part in parts for item in part.items) == sorted(sizes)


def test_what_would_waste_padding_goes_with_its_like() -> None:
    items = [Item(1), Item(9), Item(1), Item(9)]
    parts = drain(schedule(*items, padded=as_the_largest))
    assert [[item.num_tokens for item in part.items] for part in parts] == [[1, 1], [9, 9]]


@given(st.lists(st.integers(1, 200), max_size=8), st.integers(21, 200), st.integers(1, 20))
def test_nothing_starves(before: list[int], size: int, small: int) -> None:
    """Under an endless stream of small ones an item is through once what may pass it, and did, is done."""
    one = Item(size)
    made, now_s, work_s = schedule(*map(Item, before), one), 0.0, TOKEN_S * (sum(before) + size)
    while True:
        made.add(Item(small, now_s))  # more than the device can do: each slice takes longer than it brings
        part = made.next()
        assert part is not None
        now_s += max(SLICE_S, sum(item.num_tokens for item in part.items) * TOKEN_S / part.count)
        if one in part.items and part.is_last:
            break
        assert now_s <= TOKEN_S * size / AGING + 20 * work_s + 1


@given(st.lists(st.tuples(st.integers(1, 200), st.floats(0, 5)), min_size=2, max_size=12))
def test_no_slice_is_long_and_all_are_encoded_once(drawn: list[tuple[int, float]]) -> None:
    items = [Item(*each) for each in drawn]
    parts = drain(schedule(*items))
    for part in parts:
        assert sum(item.num_tokens for item in part.items) * TOKEN_S / part.count <= SLICE_S + 1e-9
    done = [item for part in parts if part.is_last for item in part.items]
    assert sorted(map(id, done)) == sorted(map(id, items))
