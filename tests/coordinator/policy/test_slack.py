"""The weight goes to the side that misses its target, slowly and within bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.policy.slack import SlackWeight

seconds = st.floats(0, 1e6)


def weight() -> SlackWeight:
    return SlackWeight(ttft_s=1.0, tpot_s=0.1)


def test_it_starts_at_its_default() -> None:
    assert weight().weight == 1.0
    assert SlackWeight(1.0, 0.1, default=3.0).weight == 3.0


def test_missed_tpot_raises_and_missed_ttft_lowers_it() -> None:
    up, down = weight(), weight()
    for _ in range(20):
        up.note_tpot(0.2)
        down.note_ttft(2.0)
    assert up.weight > 1.2
    assert down.weight < 0.8


@given(st.lists(st.tuples(st.booleans(), seconds), max_size=300))
def test_it_is_slow_and_bounded(measured: list[tuple[bool, float]]) -> None:
    slack = weight()
    for is_ttft, value in measured:
        before = slack.weight
        (slack.note_ttft if is_ttft else slack.note_tpot)(value)
        assert slack.weight == pytest.approx(before, rel=0.05)
        assert 1 / 8.001 <= slack.weight <= 8.001


def test_it_drifts_back_while_both_are_met() -> None:
    slack = weight()
    for _ in range(100):
        slack.note_tpot(1.0)
    for _ in range(1000):
        slack.note_tpot(0.05)
        slack.note_ttft(0.5)
    assert slack.weight == pytest.approx(1.0, rel=0.01)
