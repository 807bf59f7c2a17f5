from __future__ import annotations

import random

import pytest

from core.cache import reuse
from core.cache.reuse import USES, ReuseHistory


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def turns(history: ReuseHistory, gap_s: float, kind: int, first: int, num_keys: int = 2000) -> None:
    """Every second key is used again after the gap, the others never."""
    for number in range(first, first + num_keys):
        history.note_use(key(number), kind, number)
        if number >= first + gap_s and number % 2:
            history.note_use(key(number - round(gap_s)), kind, number)


def test_uses_are_counted_also_of_what_nobody_keeps() -> None:
    history = ReuseHistory()
    assert [history.note_use(key(1), 0, now_s) for now_s in range(3)] == [0, 1, 2]
    assert history.note_use(key(2), 0, 3) == 0


def test_only_the_latest_are_remembered() -> None:
    history = ReuseHistory(most_tracked=10)
    for number in range(20):
        history.note_use(key(number), 0, number)
    assert len(history) == 10
    assert key(9) not in history
    assert key(10) in history


def test_before_anything_is_known_the_latest_use_is_worth_most() -> None:
    history = ReuseHistory()
    assert history.worth(0, 0, 0.5) > history.worth(0, 0, 10) > history.worth(0, 0, 1000)


def test_worth_rises_towards_the_age_of_reuse_and_falls_after_it() -> None:
    history = ReuseHistory()
    turns(history, gap_s=100, kind=0, first=0)
    young, due, late = (history.worth(0, 0, age_s) for age_s in (2, 90, 400))
    assert due > young > 10 * late


def test_kinds_that_come_back_are_worth_more_than_those_that_do_not() -> None:
    history = ReuseHistory()
    turns(history, gap_s=50, kind=0, first=0)
    for number in range(2000):
        history.note_use(key(10_000 + number), 3, 10_000 + number)
    turns(history, gap_s=50, kind=0, first=20_000)
    assert history.worth(0, 0, 30) > 20 * history.worth(0, 3, 30)


def test_worth_is_the_rate_of_hits_per_second_kept() -> None:
    """Reuse at random with 0.02 a second: worth as much at every age, whatever the horizon."""
    history, rng = ReuseHistory(), random.Random(1)
    due = sorted((start + rng.expovariate(0.02), start) for start in range(4000))
    events = sorted([(float(start), start) for start in range(4000)] + due)
    for now_s, number in events:
        history.note_use(key(number), 0, now_s)
    assert all(0.015 < history.worth(0, 0, age_s) < 0.03 for age_s in (2, 20, 60))


def test_a_number_of_uses_beyond_the_last_class_is_of_that_class() -> None:
    history = ReuseHistory()
    assert history.worth(USES + 5, 0, 1) == history.worth(USES - 1, 0, 1)


def test_old_counts_fade_so_that_habits_may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reuse, "_MOST_COUNTED", 1500)
    history = ReuseHistory(most_tracked=1000)
    turns(history, gap_s=200, kind=0, first=0, num_keys=10_000)
    assert history.worth(0, 0, 190) > history.worth(0, 0, 10)
    turns(history, gap_s=20, kind=0, first=10_000, num_keys=10_000)
    assert history.worth(0, 0, 190) < history.worth(0, 0, 10)
