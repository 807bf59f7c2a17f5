"""What keeps plans from swinging: how long a change stays, and how much a new one must improve."""

from __future__ import annotations

from collections.abc import Collection

from coordinator.policy.books import InstanceBook


class Hysteresis:
    """Remembers when each instance was last given something to play.

    Each change within `memory_s` of the one before doubles the dwell of the instance, up to `most_dwell_s`:
    traffic that comes and goes faster than changes pay off soon finds instances that stay.
    """

    def __init__(
        self,
        dwell_s: float = 5.0,
        least_improvement: float = 0.05,
        memory_s: float = 60.0,
        most_dwell_s: float = 40.0,
    ) -> None:
        self.least_improvement = least_improvement  # of scores
        self._dwell_s = dwell_s
        self._memory_s = memory_s
        self._most_dwell_s = most_dwell_s
        self._changes: dict[str, tuple[float, float]] = {}  # when, and the dwell from then on

    @classmethod
    def none(cls) -> Hysteresis:
        """Lets every improvement through at once."""
        return cls(dwell_s=0.0, least_improvement=0.0, memory_s=0.0, most_dwell_s=0.0)

    def may_move(self, book: InstanceBook, now_s: float) -> bool:
        changed_s, dwell_s = self._changes.get(book.instance_id, (book.since_s, 0.0))
        return now_s >= max(changed_s, book.since_s) + dwell_s

    def improves(self, present: float, proposed: float) -> bool:
        """Whether scores (about the share of requests that miss a target) differ enough."""
        return present - proposed > self.least_improvement

    def note_change(self, instance_id: str, now_s: float) -> None:
        changed_s, dwell_s = self._changes.get(instance_id, (-float("inf"), self._dwell_s))
        is_recent = now_s - changed_s < self._memory_s
        dwell_s = min(self._most_dwell_s, 2 * dwell_s) if is_recent else self._dwell_s
        self._changes[instance_id] = (now_s, dwell_s)

    def forget(self, present: Collection[str]) -> None:
        """Instances that are gone."""
        for name in self._changes.keys() - set(present):
            del self._changes[name]
