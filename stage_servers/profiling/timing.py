"""How long work takes on a device: repeated, and the median taken."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


class Stopwatch:
    """Waits for the device before and after, and repeats each point within bounds."""

    def __init__(self, device: torch.device, repeats: int, point_s: float) -> None:
        self._is_cuda = device.type == "cuda"
        self._repeats = repeats
        self._point_s = point_s

    def once(self, work: Callable[[], object]) -> float:
        """Seconds of one run."""
        self._wait()
        started_s = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - started_s

    def median(self, work: Callable[[], object]) -> float:
        """Seconds; the first run warms up and does not count."""
        work()
        return statistics.median(self.repeat(lambda: self.once(work)))

    def repeat(self, measure: Callable[[], float]) -> list[float]:
        """At least one measurement, and as many as `repeats` and `point_s` allow."""
        until_s = time.perf_counter() + self._point_s
        found = [measure()]
        while len(found) < self._repeats and time.perf_counter() < until_s:
            found.append(measure())
        return found

    def _wait(self) -> None:
        if self._is_cuda:
            torch.cuda.synchronize()
