"""One trace at many rates."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from simulator.scenario import CaseSpec
from simulator.workload.request import Request
from simulator.workload.spec import Workload

RESOLUTION = 0.05  # from one rate to the next


class Traces:
    """The trace of one seed. What is made for a rate has a share of the highest rate's requests, so that a
    lower rate lacks some of a higher one's and has no others. What is read from a file has the same requests
    at every rate, compressed to it: bursts keep their shape, which fewer requests would smooth.
    What is found at two rates differs by the rate and not by the draw.
    """

    def __init__(self, case: CaseSpec, data: Path, rates: Sequence[float], seed: int) -> None:
        """Raises WorkloadError."""
        self._workload = Workload(case.workload, data, seed)
        self._is_compressed = case.workload.trace is not None
        self._rates = rates
        self._all = () if self._is_compressed else tuple(self._workload.requests(rates[-1]))
        rng = random.Random(seed)
        self._marks = [rng.random() for _ in self._all]

    def at(self, place: int) -> list[Request]:
        """Of the rate at that place, in order of arrival. Raises WorkloadError."""
        if self._is_compressed:
            return self._workload.requests(self._rates[place])
        share = self._rates[place] / self._rates[-1]
        return [each for each, mark in zip(self._all, self._marks, strict=True) if mark < share]


def grid(least: float, most: float) -> list[float]:
    """Rates that rise from about the one to the other by RESOLUTION each."""
    rates = [most]
    while rates[-1] / (1 + RESOLUTION) >= least:
        rates.append(rates[-1] / (1 + RESOLUTION))
    return rates[::-1]
