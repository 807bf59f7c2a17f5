"""Stage servers that die are started again, a bounded number of times."""

import pytest

from cli.launch.restarts import WINDOW_S, Restarts


def test_waits_grow_and_end() -> None:
    restarts = Restarts(3)
    assert [restarts.died("a", float(now)) for now in range(4)] == [1, 2, 4, None]
    assert restarts.died("b", 4.0) == 1, "each for itself"


def test_what_is_long_ago_does_not_count() -> None:
    restarts = Restarts(1)
    assert restarts.died("a", 0.0) == 1
    assert restarts.died("a", WINDOW_S - 1) is None
    assert restarts.died("a", 3 * WINDOW_S) == 1


def test_each_is_due_once() -> None:
    restarts = Restarts(3)
    assert not restarts
    assert restarts.wait_s(0.0) is None
    restarts.died("a", 10.0)
    restarts.died("b", 10.5)
    assert restarts.wait_s(10.5) == pytest.approx(0.5)
    assert restarts.take_due(10.9) == []
    assert restarts.take_due(11.0) == ["a"]
    assert restarts.wait_s(20.0) == 0.0, "never below"
    assert restarts.take_due(20.0) == ["b"]
    assert not restarts


def test_none_is_allowed() -> None:
    restarts = Restarts(0)
    assert restarts.died("a", 0.0) is None
    assert not restarts
