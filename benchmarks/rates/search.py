"""The last of rising rates that still attains enough, in few runs from a good guess."""

from __future__ import annotations

from collections.abc import Mapping


def next_place(attained: Mapping[int, bool], guess: int, count: int) -> int | None:
    """Which of `count` rising rates to run next, by place; None: the answer is known.

    From the guess one place on, then two, four, until one does and one does not; then halves between them.
    """
    if not attained:
        return min(max(guess, 0), count - 1)
    low, high = bracket(attained, count)
    if high - low <= 1:
        return None
    if low not in attained or high not in attained:
        step = 1 << (len(attained) - 1)
        return max(high - step, 0) if low not in attained else min(low + step, count - 1)
    return (low + high) // 2


def bracket(attained: Mapping[int, bool], count: int) -> tuple[int, int]:
    """Places of the last rate that attains enough below the first that does not; -1 and `count` if none."""
    high = min((place for place, is_enough in attained.items() if not is_enough), default=count)
    low = max((place for place, is_enough in attained.items() if is_enough and place < high), default=-1)
    return low, high
