"""How much work is about to arrive: instance-seconds per second, from what arrived lately."""

from __future__ import annotations

import math
from collections import deque

MEAN_S = 5.0  # over which what comes now is averaged


class DecayedMean:
    """Work per second lately, each second's share of it decayed."""

    def __init__(self, mean_s: float = MEAN_S) -> None:
        self._mean_s = mean_s
        self._level = 0.0  # work arrived, decayed to `_at_s`
        self._at_s = -math.inf

    def average_over(self, mean_s: float) -> None:
        """From now on; what the mean is, it stays."""
        self._level *= mean_s / self._mean_s
        self._mean_s = mean_s

    def note(self, work_s: float, now_s: float) -> None:
        """So much work has arrived; `now_s` may repeat."""
        self.decay(now_s)
        self._level += work_s

    def decay(self, now_s: float) -> None:
        self._level *= self._factor(now_s)
        self._at_s = max(self._at_s, now_s)

    def at(self, now_s: float) -> float:
        return self._level * self._factor(now_s) / self._mean_s

    def _factor(self, now_s: float) -> float:
        return math.exp(-max(0.0, now_s - self._at_s) / self._mean_s)


class Forecast:
    """Demand of one stream of work: its decayed mean, or a high quantile of that over the window if larger.

    The mean over about `mean_s` rises with a burst at once; the quantile keeps it in mind for a while. It
    counts work, not requests: a storm of long prompts at a constant request rate shows.
    """

    def __init__(
        self, mean_s: float = MEAN_S, window_s: float = 60.0, quantile: float = 0.9, sample_s: float = 1.0
    ) -> None:
        self._mean = DecayedMean(mean_s)
        self._sample_s = sample_s
        self._quantile = quantile
        self._is_empty = True  # nothing has arrived yet
        self._next_sample_s = 0.0
        self._samples: deque[float] = deque(maxlen=max(1, round(window_s / sample_s)))

    def note(self, work_s: float, now_s: float) -> None:
        """So much work has arrived; takes constant time but for seconds passed, at most a window of them."""
        if self._is_empty:
            self._is_empty, self._next_sample_s = False, now_s + self._sample_s
        self._advance(now_s)
        self._mean.note(work_s, now_s)

    def mean(self, now_s: float) -> float:
        """Instance-seconds per second lately."""
        return self._mean.at(now_s)

    def demand(self, now_s: float) -> float:
        """Instance-seconds per second to be ready for."""
        if self._is_empty:
            return 0.0
        self._advance(now_s)
        ordered = sorted(self._samples)
        high = ordered[min(len(ordered) - 1, int(self._quantile * len(ordered)))] if ordered else 0.0
        return max(self.mean(now_s), high)

    def _advance(self, now_s: float) -> None:
        """Takes the samples that are due, and lets the mean decay; `now_s` may repeat."""
        if now_s >= self._next_sample_s:
            self._take_samples(now_s)
        self._mean.decay(now_s)

    def _take_samples(self, now_s: float) -> None:
        due = math.floor((now_s - self._next_sample_s) / self._sample_s) + 1
        skipped = max(0, due - (self._samples.maxlen or 0))
        self._next_sample_s += skipped * self._sample_s
        for _ in range(due - skipped):
            self._samples.append(self.mean(self._next_sample_s))
            self._next_sample_s += self._sample_s
