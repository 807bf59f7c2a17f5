"""How much time an aside may take."""

from __future__ import annotations

from core.clock import Clock

SHARE = 0.1
MOST_S = 0.02  # that may be saved up


class TimeShare:
    """A share of the time, used up as it is spent; one spending may go beyond what is left, the next not."""

    def __init__(self, clock: Clock, share: float = SHARE, most_s: float = MOST_S) -> None:
        self._clock = clock
        self._share = share
        self._most_s = most_s
        self._left_s, self._at_s = most_s, clock.now_s()
        self.spent_s = 0.0  # in all

    def now_s(self) -> float:
        return self._clock.now_s()

    @property
    def has_room(self) -> bool:
        return self._room_s(self._clock.now_s()) > 0

    def spend(self, seconds: float) -> None:
        now_s = self._clock.now_s()
        self._left_s, self._at_s = self._room_s(now_s) - seconds, now_s
        self.spent_s += seconds

    def _room_s(self, now_s: float) -> float:
        return min(self._most_s, self._left_s + self._share * (now_s - self._at_s))
