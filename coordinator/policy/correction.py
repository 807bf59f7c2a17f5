"""Scale factors that bring predicted times to measured ones, learned as they come."""

from __future__ import annotations

import math
from collections.abc import Sequence

LEAST, MOST = 0.25, 4.0
_CLOSE = 1e-3
_SPREAD_STEP = 1.05
_LEAST_SPREAD, _MOST_SPREAD = 0.01, 0.5


def is_close(seconds: float, predicted_s: float) -> bool:
    """Whether there is nothing to learn from it; what is predicted is more than zero."""
    return abs(seconds / predicted_s - 1) < _CLOSE


class Correction:
    """Recursive least squares with additive forgetting on seconds = sum of factor[i] * parts[i].

    A part is forgotten as far as it is measured: what never shows keeps its factor. An error that is far
    beyond the usual spread counts as three times the spread, so that a hiccup moves little, while a lasting
    change widens the spread and is followed.
    """

    def __init__(self, num_parts: int, forgetting: float = 0.002, variance: float = 0.1) -> None:
        """`variance` is how far off factors may be at first, `forgetting` what it grows by each time."""
        self.factors = [1.0] * num_parts  # each within [LEAST, MOST]
        self._forgetting = forgetting
        self._variances = [
            [variance if row == column else 0.0 for column in range(num_parts)] for row in range(num_parts)
        ]
        self._spread = 0.2  # about the median of absolute errors

    def apply(self, parts: Sequence[float]) -> float:
        total = 0.0
        for factor, part in zip(self.factors, parts, strict=True):
            total += factor * part
        return total

    def note(self, parts: Sequence[float], seconds: float) -> bool:
        """What the profile says of each part, and how long it took in all; whether anything was learned.

        Nonsense is passed over, and so is what was predicted right.
        """
        predicted = self.apply(parts)
        if not predicted > 0 or is_close(seconds, predicted):
            return False
        if not (seconds > 0 and math.isfinite(seconds)):
            return False
        total = sum(parts)
        error = self._tamed(seconds / predicted - 1) * predicted / total
        gains = self._gains([part / total for part in parts])
        self.factors = [
            min(MOST, max(LEAST, factor + gain * error))
            for factor, gain in zip(self.factors, gains, strict=True)
        ]
        return True

    def _tamed(self, error: float) -> float:
        limit = 3 * self._spread
        grown = self._spread * (_SPREAD_STEP if abs(error) > self._spread else 1 / _SPREAD_STEP)
        self._spread = min(_MOST_SPREAD, max(_LEAST_SPREAD, grown))
        return min(limit, max(-limit, error))

    def _gains(self, inputs: Sequence[float]) -> list[float]:
        """How much of an error each factor takes; `inputs` add up to one."""
        reach = [sum(v * x for v, x in zip(row, inputs, strict=True)) for row in self._variances]
        scale = 1 + sum([r * x for r, x in zip(reach, inputs, strict=True)], 0.0)
        gains = [each / scale for each in reach]
        for at, (row, gain) in enumerate(zip(self._variances, gains, strict=True)):
            for column, other in enumerate(reach):
                row[column] -= gain * other
            row[at] += self._forgetting * inputs[at]
        return gains
