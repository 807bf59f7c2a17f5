"""One trace at many rates."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from simulator.scenario import CaseSpec
from simulator.workload.request import Request
from simulator.workload.spec import Workload

RESOLUTION = 0.05  # from one rate to the next


class Thinned:
    """What is made for a rate: a share of the highest rate's requests, so that a lower rate lacks some of a
    higher one's and has no others.
    """

    def __init__(self, workload: Workload, rates: Sequence[float], seed: int) -> None:
        """Raises WorkloadError."""
        self._all = workload.requests(rates[-1])
        rng = random.Random(seed)
        self._marks = [rng.random() for _ in self._all]
        self._rates = rates

    def at(self, place: int) -> list[Request]:
        """Of the rate at that place, in order of arrival."""
        share = self._rates[place] / self._rates[-1]
        return [each for each, mark in zip(self._all, self._marks, strict=True) if mark < share]


class Compressed:
    """What is read from a file: the same requests at every rate; with fewer, bursts would be flatter."""

    def __init__(self, workload: Workload, rates: Sequence[float]) -> None:
        self._workload = workload
        self._rates = rates

    def at(self, place: int) -> list[Request]:
        """Of the rate at that place, in order of arrival. Raises WorkloadError."""
        return self._workload.requests(self._rates[place])


Traces = Thinned | Compressed


def traces(case: CaseSpec, data: Path, rates: Sequence[float], seed: int) -> Traces:
    """Of one seed: what is found at two rates differs by the rate and not by the draw.

    Raises WorkloadError.
    """
    workload = Workload(case.workload, data, seed)
    return Thinned(workload, rates, seed) if case.workload.trace is None else Compressed(workload, rates)


def grid(least: float, most: float) -> list[float]:
    """Rates that rise from about the one to the other by RESOLUTION each."""
    rates = [most]
    while rates[-1] / (1 + RESOLUTION) >= least:
        rates.append(rates[-1] / (1 + RESOLUTION))
    return rates[::-1]
