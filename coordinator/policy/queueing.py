"""How long work waits for a pool of equal servers: textbook estimates, no simulation."""

from __future__ import annotations

from math import exp, log, sqrt
from statistics import NormalDist
from typing import NamedTuple

MOST_LOAD = 0.95  # above it the estimates of a steady state say little
OVERLOAD_S = 20.0  # there a queue grows instead; what it has grown to after so long is counted
_MOST_EXPONENT = 50.0  # of e, past which a limit is reached
_PARTS = 5  # of a distribution that is looked at by parts
_Z_90 = 1.2816  # the 90th percentile of the standard normal distribution


class Flow(NamedTuple):
    """Jobs that come in: how many a second, the mean of their seconds, and the mean of the squares."""

    rate: float = 0.0
    mean_s: float = 0.0
    square_s2: float = 0.0

    @property
    def work(self) -> float:
        """Server-seconds that come in per second."""
        return self.rate * self.mean_s

    @property
    def deviation_s(self) -> float:
        """The standard deviation of the jobs' seconds."""
        return sqrt(max(0.0, self.square_s2 - self.mean_s**2))

    def plus(self, other: Flow) -> Flow:
        rate = self.rate + other.rate
        if rate <= 0:
            return Flow()
        mean_s = (self.work + other.work) / rate
        return Flow(rate, mean_s, (self.rate * self.square_s2 + other.rate * other.square_s2) / rate)


NO_FLOW = Flow()


class Queue(NamedTuple):
    """A pool under a flow. `residual_s` is what a job meets of those in service (Cobham's W0)."""

    load: float  # of each server, above 1 where the pool cannot keep up
    wait_chance: float
    residual_s: float


def pooled(flow: Flow, servers: int, other_load: float = 0.0) -> Queue:
    """M/G/c by Sakasegawa (1977): mean wait = chance * mean * (1 + cs2) / 2 / (c * (1 - load)),

    with chance = load ** (sqrt(2 * (c + 1)) - 1) and cs2 the squared coefficient of variation of the jobs.
    `other_load` of each server is taken up by something else.
    """
    load = flow.work / servers + other_load
    if flow.work <= 0:
        return Queue(other_load, 0.0, 0.0)
    steady = min(load, MOST_LOAD)
    chance = steady ** (sqrt(2 * (servers + 1)) - 1)
    return Queue(load, chance, chance * flow.square_s2 / flow.mean_s / 2 / servers)


def wait_90_s(queue: Queue, load_before: float = 0.0, load_with: float | None = None) -> float:
    """The 90th percentile of the wait.

    Of a class that others go before (`load_before`: their load) by Cobham (1954): in the mean
    W0 / (1 - load_before) / (1 - load_with), `load_with` being the load of those and its own.
    None: one class, first come first served.
    Given that a job waits, the wait is taken to be exponential.
    """
    if queue.wait_chance <= 0:
        return 0.0
    with_own = queue.load if load_with is None else load_with
    mean_s = queue.residual_s / (1 - min(load_before, MOST_LOAD)) / (1 - min(with_own, MOST_LOAD))
    tail = max(0.0, log(10 * queue.wait_chance))
    growth_s = max(0.0, with_own - MOST_LOAD) * OVERLOAD_S
    return mean_s / queue.wait_chance * tail + growth_s


def lost_share(load: float, per_s: float, patience_s: float) -> float:
    """Of jobs that are passed over once they have waited so long: an M/M/1 queue with deterministic patience.

    With load r, service rate m and patience T, after Barrer (1957): r (1 - r) x / (1 - r^2 x) with
    x = exp(-m (1 - r) T): r / (1 + r) without patience, about 1 / (2 + m T) at full load, and 1 - 1 / r far
    above it. A pool is taken as one server of the rate of all, `per_s`.
    """
    if load <= 0:
        return 0.0
    patience = per_s * max(0.0, patience_s)
    spare = 1 - load
    if abs(spare) * (2 + patience) < 1e-6:
        return 1 / (2 + patience)
    exponent = -patience * spare
    if exponent > _MOST_EXPONENT:
        return 1 - 1 / load
    left = exp(exponent)
    return load * spare * left / (1 - load * load * left)


def log_normal_within(mean: float, deviation: float, most: float) -> tuple[float, list[float]]:
    """The share of a log-normal distribution up to `most`, and the middles of equal parts of that share."""
    if mean <= 0 or most <= 0:
        return float(mean <= most), [max(0.0, min(mean, most))]
    variance = log(1 + (deviation / mean) ** 2)
    middle = log(mean) - variance / 2
    if variance < 1e-9:
        return float(mean <= most), [min(mean, most)]
    sizes = NormalDist(middle, sqrt(variance))
    share = sizes.cdf(log(most))
    if share < 1e-9:
        return 0.0, [most]
    return share, [exp(sizes.inv_cdf(share * (part + 0.5) / _PARTS)) for part in range(_PARTS)]


def mixed_turn_s(alone_s: float, beside_s: float, others: Flow, guess_s: float) -> float:
    """The mean turn of an engine; each takes a step of the decode batch and all other jobs that are there.

    With jobs in Poisson arrivals, a turn of t seconds meets none with probability q = exp(-rate * t). The
    batch costs `alone_s` in such a turn and `beside_s` in one that works on jobs anyhow, so that
        t * (1 - load) = q * alone_s + (1 - q) * beside_s.
    One step of the iteration that solves it, from `guess_s`.
    """
    none = exp(-others.rate * guess_s)
    return (none * alone_s + (1 - none) * beside_s) / (1 - min(others.work, MOST_LOAD))


def mixed_rate_s(alone_s: float, busy_s: float, busy: float) -> float:
    """The mean time per token where turns take `busy_s` for that share of the time, and `alone_s` else."""
    return 1 / ((1 - busy) / alone_s + busy / busy_s)


def spread_90_s(elapsed_s: float, others: Flow) -> float:
    """By how much the jobs that come within that time exceed their mean, in one case of ten.

    A compound Poisson sum: its variance is rate * time * mean square; it is taken to be normal.
    """
    return _Z_90 * sqrt(others.rate * elapsed_s * others.square_s2)
