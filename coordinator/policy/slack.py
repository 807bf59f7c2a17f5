"""The weight w of harm done to running work, tuned by which of the two targets is being missed."""

from __future__ import annotations

import math

DEFAULT_WEIGHT = 1.0


class SlackWeight:
    """w in gain > migration + w * harm, where the harm is to sequences that decode.

    It rises while time per output token misses its target, falls while time to first token does, and drifts
    back while both are met. Each request moves it by a few percent at most.
    """

    def __init__(
        self,
        ttft_s: float,
        tpot_s: float,
        default: float = DEFAULT_WEIGHT,
        range_factor: float = 8.0,
        step: float = 0.02,
    ) -> None:
        """Targets in seconds; w stays within default / range_factor and default * range_factor."""
        self._ttft_s, self._tpot_s = ttft_s, tpot_s
        self._default = default
        self._limit = math.log(range_factor)
        self._step = step
        self._log = 0.0  # of w over its default

    @property
    def weight(self) -> float:
        return self._default * math.exp(self._log)

    def note_ttft(self, ttft_s: float) -> None:
        self._note(-_miss(ttft_s, self._ttft_s))

    def note_tpot(self, tpot_s: float) -> None:
        self._note(_miss(tpot_s, self._tpot_s))

    def _note(self, push: float) -> None:
        moved = self._log + self._step * push if push else self._log * (1 - self._step / 4)
        self._log = min(self._limit, max(-self._limit, moved))


def _miss(measured_s: float, target_s: float) -> float:
    """By which share of the target it was missed, at most one; 0 where it was met."""
    return 0.0 if measured_s <= target_s else min(1.0, measured_s / target_s - 1)
