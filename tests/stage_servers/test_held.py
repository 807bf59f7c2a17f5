"""Calls for a sequence that is not there yet wait, in order, and those of others do not."""

from __future__ import annotations

from stage_servers.held import HeldCalls

KEY, OTHER = ("r", 0), ("s", 0)


def test_held_calls_come_in_order() -> None:
    held, made = HeldCalls(), []
    held.hold(KEY)
    for number in range(3):
        held.call(KEY, lambda number=number: made.append(number))  # type: ignore[misc]
    held.call(OTHER, lambda: made.append("other"))
    assert made == ["other"]
    held.release(KEY)
    assert made == ["other", 0, 1, 2]
    held.call(KEY, lambda: made.append("late"))
    assert made[-1] == "late"
    assert list(held) == []


def test_dropped_calls_are_not_made() -> None:
    held, made = HeldCalls(), []
    held.hold(KEY)
    held.call(KEY, lambda: made.append(1))
    held.drop(KEY)
    held.release(KEY)
    assert made == []
