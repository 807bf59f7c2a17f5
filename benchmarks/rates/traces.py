"""One trace at many rates: every rate has a share of the same requests."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from simulator.scenario import CaseSpec
from simulator.workload.request import Request
from simulator.workload.spec import Workload

RESOLUTION = 0.05  # from one rate to the next


class Traces:
    """The trace of one seed. A lower rate lacks some of a higher one's requests and has no others, so that
    what is found at two rates differs by the rate and not by the draw.
    """

    def __init__(self, case: CaseSpec, data: Path, rates: Sequence[float], seed: int) -> None:
        """Raises WorkloadError."""
        self._all = Workload(case.workload, data, seed).requests(rates[-1])
        rng = random.Random(seed)
        self._marks = [rng.random() for _ in self._all]
        self._rates = rates

    def at(self, place: int) -> list[Request]:
        """Of the rate at that place, in order of arrival."""
        share = self._rates[place] / self._rates[-1]
        return [each for each, mark in zip(self._all, self._marks, strict=True) if mark < share]


def grid(least: float, most: float) -> list[float]:
    """Rates that rise from about the one to the other by RESOLUTION each."""
    rates = [most]
    while rates[-1] / (1 + RESOLUTION) >= least:
        rates.append(rates[-1] / (1 + RESOLUTION))
    return rates[::-1]
