"""Confidence intervals of what is measured, and of differences; requests count as independent."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, sqrt
from statistics import NormalDist
from typing import NamedTuple

CONFIDENCE = 0.95
_Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


class Estimate(NamedTuple):
    """A value, and the limits that its interval has."""

    value: float
    low: float
    high: float


def proportion(hits: int, total: int) -> Estimate | None:
    """Wilson's score interval (1927); None of nothing."""
    if not total:
        return None
    share, weight = hits / total, _Z**2 / total
    middle = (share + weight / 2) / (1 + weight)
    reach = _Z * sqrt(share * (1 - share) / total + weight / (4 * total)) / (1 + weight)
    return Estimate(share, min(share, middle - reach), max(share, middle + reach))


def quantile(ordered: Sequence[float], part: float) -> Estimate | None:
    """Of ascending samples, by ranks from the normal approximation of the binomial distribution (Conover,
    Practical Nonparametric Statistics, 3.2); None where they are too few for both limits.
    """
    count = len(ordered)
    reach = _Z * sqrt(count * part * (1 - part))
    low, high = floor(count * part - reach), ceil(count * part + reach) + 1
    if low < 1 or high > count:
        return None
    return Estimate(ordered[_rank(count, part) - 1], ordered[low - 1], ordered[high - 1])


def sample_quantile(ordered: Sequence[float], part: float) -> float | None:
    """Of ascending samples, however few; None of nothing."""
    return ordered[_rank(len(ordered), part) - 1] if ordered else None


def rate(count: int, exposure: float) -> Estimate | None:
    """Of Poisson events in so much time, or so many instance-seconds: the score interval (Barker 2002), with
    x events (x + z^2 / 2 +- z * sqrt(x + z^2 / 4)) / exposure; None without exposure.
    """
    if exposure <= 0:
        return None
    middle, reach = count + _Z**2 / 2, _Z * sqrt(count + _Z**2 / 4)
    return Estimate(count / exposure, (middle - reach) / exposure, (middle + reach) / exposure)


def inverse(found: Estimate | None, scale: float) -> Estimate | None:
    """Of scale / value, with the limits exchanged; None where a limit would be infinite."""
    if found is None or found.low <= 0:
        return None
    return Estimate(scale / found.value, scale / found.high, scale / found.low)


def difference(second: Estimate, first: Estimate) -> Estimate:
    """Second minus first, from the limits of either: Newcombe's method 10 (1998) for proportions, MOVER (Zou
    and Donner 2008) in general.
    """
    value = second.value - first.value
    below = sqrt((second.value - second.low) ** 2 + (first.high - first.value) ** 2)
    above = sqrt((second.high - second.value) ** 2 + (first.value - first.low) ** 2)
    return Estimate(value, value - below, value + above)


def _rank(count: int, part: float) -> int:
    """Of the smallest sample that is not below that part of all, from 1."""
    return max(1, ceil(count * part))
