from __future__ import annotations

import pytest

from core.cache.book import CacheBook
from core.cache.entry import Entry
from core.cache.eviction import EvictionPolicy
from core.cache.policies import POLICIES
from core.cache.reuse import ReuseHistory
from core.cache.seconds_saved import SecondsSaved


def entry(number: int, used_s: float = 0.0, seconds: float = 1.0, size_bytes: int = 1) -> Entry:
    return Entry(number.to_bytes(32, "big"), None, "", size_bytes, seconds, (), used_s)


EVERY_POLICY = pytest.mark.parametrize("policy", [make(16) for make in POLICIES.values()], ids=POLICIES)


@EVERY_POLICY
def test_the_longest_unused_goes_first_among_equals(policy: EvictionPolicy) -> None:
    order = policy.make_order()
    entries = [entry(number, used_s=float(number)) for number in (3, 1, 2)]
    for each in entries:
        order.add(each, 10.0)
    assert order.least(10.0) is entries[1]
    order.discard(entries[1])
    assert order.least(10.0) is entries[2]
    order.discard(entries[1])
    assert len(order) == 2


@EVERY_POLICY
def test_what_comes_and_goes_often_leaves_nothing_behind(policy: EvictionPolicy) -> None:
    order = policy.make_order()
    stays = entry(0, used_s=1.0)
    order.add(stays, 1.0)
    for number in range(1, 20_000):
        passing = entry(number, used_s=2.0)
        order.add(passing, 2.0)
        if number % 3 == 0:
            assert order.least(2.0) is stays
        order.discard(passing)
    assert len(order) == 1
    heaps = [value for value in vars(order).values() if isinstance(value, list)]
    assert max(map(len, heaps)) < 10_000


def test_what_takes_longer_to_make_again_stays_and_what_is_larger_goes() -> None:
    order = SecondsSaved(16).make_order()
    cheap, dear, large = entry(1), entry(2, seconds=3.0), entry(3, seconds=3.0, size_bytes=6)
    for each in (dear, cheap, large):
        order.add(each, 1.0)
    first = order.least(1.0)
    assert first is large
    order.discard(first)
    assert order.least(1.0) is cheap


def test_of_many_the_least_of_a_sample_goes_and_newcomers_are_in_it() -> None:
    order = SecondsSaved(16).make_order()
    for number in range(5000):
        order.add(entry(number, seconds=1.0 + number), 1.0)
    worst = order.least(1.0)
    assert worst is not None
    assert worst.seconds < 100
    newcomer = entry(9999, seconds=0.01)
    order.add(newcomer, 1.0)
    assert order.least(1.0) is newcomer


def test_a_sample_that_is_used_up_is_drawn_again() -> None:
    order = SecondsSaved(16).make_order()
    for number in range(3000):
        order.add(entry(number), 1.0)
    gone = set()
    while (least := order.least(1.0)) is not None:
        gone.add(least.key)
        order.discard(least)
    assert len(gone) == 3000


def test_users_are_told_apart_by_how_much_of_theirs_was_never_seen() -> None:
    policy = SecondsSaved(512, ReuseHistory())
    keys = [number.to_bytes(32, "big") for number in range(100)]
    assert [policy.kind_of(keys[:count], 0) for count in (3, 4, 8, 100)] == [0, 1, 2, 5]
    book = CacheBook(policy, 1)
    for key in keys[:90]:
        stored = book.store(key, None, (), 0, tenant="", size_bytes=1, seconds=1.0)
        assert stored is not None
        book.release([stored], 0)
    assert policy.kind_of(keys, 0) == 2  # the ten that are new, though hardly any is kept
