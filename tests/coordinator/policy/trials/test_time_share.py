"""How much of the time an aside gets."""

from __future__ import annotations

import pytest

from coordinator.policy.trials.time_share import TimeShare
from core.clock import ManualClock


def test_what_was_saved_up_is_spent_at_once_and_comes_back_as_a_share_of_the_time() -> None:
    clock = ManualClock()
    time = TimeShare(clock, share=0.1, most_s=0.02)
    assert time.has_room
    time.spend(0.03)
    assert not time.has_room
    clock.advance(0.09)
    assert not time.has_room
    clock.advance(0.02)
    assert time.has_room
    assert time.spent_s == pytest.approx(0.03)


def test_no_more_than_so_much_is_saved_up() -> None:
    clock = ManualClock()
    time = TimeShare(clock, share=0.1, most_s=0.02)
    clock.advance(1000)
    time.spend(0.021)
    assert not time.has_room
