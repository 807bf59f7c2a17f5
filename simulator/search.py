"""The highest rate at which enough requests meet their targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def best_rate(
    attained: Callable[[float], float], rates: Sequence[float], wanted: float, refine_steps: int
) -> float:
    """The highest rate found whose attainment is as wanted; 0.0 if not even the lowest one's is.

    `rates` rise; the bracket between the last that passes and the next is halved `refine_steps` times. Where
    all pass, the last one is the answer: a lower bound.
    """
    passing = 0.0
    for rate in rates:
        if attained(rate) < wanted:
            return _refine(attained, passing, rate, wanted, refine_steps)
        passing = rate
    return passing


def _refine(attained: Callable[[float], float], low: float, high: float, wanted: float, steps: int) -> float:
    for _ in range(steps):
        middle = (low + high) / 2
        if attained(middle) >= wanted:
            low = middle
        else:
            high = middle
    return low
