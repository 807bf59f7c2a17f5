"""What is predicted follows what was seen."""

import pytest

from core.estimate import RunningEstimate


def test_a_first_guess_holds_until_work_is_seen() -> None:
    assert RunningEstimate(0.5, 10).seconds(4) == 2


def test_it_follows_what_is_seen() -> None:
    estimate = RunningEstimate(0.5, 10)
    for _ in range(40):
        estimate.note(100, 10)
    assert estimate.seconds(1) == pytest.approx(0.1, rel=0.01)


def test_no_work_is_no_observation() -> None:
    estimate = RunningEstimate(0.5, 10)
    estimate.note(0, 1)
    assert estimate.seconds(1) == 0.5
