"""A running estimate of what work of some size takes."""

from __future__ import annotations

_KEPT = 0.8  # of the weight of what was seen, per observation


class RunningEstimate:
    """Seconds per unit (a token, a pixel); what was seen last counts most."""

    __slots__ = ("_seconds", "_units")

    def __init__(self, first_s_per_unit: float, first_units: float) -> None:
        """What holds until work is seen, and how much work that is worth."""
        self._units = first_units
        self._seconds = first_s_per_unit * first_units

    def seconds(self, units: float) -> float:
        return units * self._seconds / self._units

    def note(self, units: float, seconds: float) -> None:
        """Work of `units` took so long; none of it is no observation."""
        if units > 0:
            self._units = _KEPT * self._units + units
            self._seconds = _KEPT * self._seconds + seconds
