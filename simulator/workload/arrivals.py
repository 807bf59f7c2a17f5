"""When requests arrive: renewal processes by rate and burstiness."""

from __future__ import annotations

from math import gamma as gamma_function
from typing import Literal

import numpy as np

from simulator.workload.errors import check

Rng = np.random.Generator
_MOST_ARRIVALS = 10_000_000
Family = Literal["Gamma", "Weibull"]


def poisson(rng: Rng, rate_rps: float, duration_s: float) -> list[float]:
    """Seconds from 0 to `duration_s`, sorted."""
    return renewal(rng, rate_rps, duration_s, "Gamma", 1.0)


def gamma(rng: Rng, rate_rps: float, cv: float, duration_s: float) -> list[float]:
    """Gaps of a Gamma distribution with that coefficient of variation; 1 is Poisson."""
    check(cv > 0, "cv", f"should be more than zero, is {cv:g}")
    return renewal(rng, rate_rps, duration_s, "Gamma", 1 / cv**2)


def renewal(rng: Rng, rate_rps: float, duration_s: float, family: Family, shape: float) -> list[float]:
    """Independent gaps of one family with mean 1 / rate."""
    check(rate_rps > 0, "rate_rps", f"should be more than zero, is {rate_rps:g}")
    check(duration_s > 0, "duration_s", f"should be more than zero, is {duration_s:g}")
    check(shape > 0, "shape", f"should be more than zero, is {shape:g}")
    too_many = f"{rate_rps:g} for {duration_s:g} s are over {_MOST_ARRIVALS:,} requests"
    check(rate_rps * duration_s <= _MOST_ARRIVALS, "rate_rps", too_many)
    times: list[float] = []
    now_s = 0.0
    while now_s < duration_s:
        expected = (duration_s - now_s) * rate_rps
        gaps = _gaps(rng, family, shape, int(expected + 4 * expected**0.5) + 8) / rate_rps
        stamps = now_s + np.cumsum(gaps)
        times += stamps[stamps < duration_s].tolist()
        now_s = float(stamps[-1])
    return times


def _gaps(rng: Rng, family: Family, shape: float, count: int) -> np.ndarray:
    """With mean 1."""
    if family == "Gamma":
        return rng.gamma(shape, 1 / shape, count)
    return rng.weibull(shape, count) / gamma_function(1 + 1 / shape)
