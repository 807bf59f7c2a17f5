"""What keeps plans from swinging: how long a change stays, and how much a new one must improve."""

from __future__ import annotations

from collections.abc import Collection

from coordinator.policy.books import InstanceBook


class Hysteresis:
    """Remembers when each instance was last given something to play, and which forms were given up lately.

    Each change within `memory_s` of the one before doubles the dwell of the instance, up to `most_dwell_s`:
    traffic that comes and goes faster than changes pay off soon finds instances that stay.

    Forms of the cluster that take turns, whichever instances make them up, are held likewise: each time that
    one comes back before the other has stayed for `memory_s`, or for twice its dwell, the dwell doubles, up
    to `most_form_dwell_s`. A form that was not there lately is free to come.
    """

    def __init__(
        self,
        dwell_s: float = 5.0,
        least_improvement: float = 0.05,
        memory_s: float = 60.0,
        most_dwell_s: float = 40.0,
        most_form_dwell_s: float = 80.0,
    ) -> None:
        self.least_improvement = least_improvement  # of scores
        self._dwell_s = dwell_s
        self._memory_s = memory_s
        self._most_dwell_s = most_dwell_s
        self._most_form_dwell_s = most_form_dwell_s
        self._changes: dict[str, tuple[float, float]] = {}  # when, and the dwell from then on
        self._left_s: dict[str, float] = {}  # forms, and when they were given up
        self._form = -float("inf"), dwell_s  # as for instances, of the form that is there

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

    def can_improve(self, present: float) -> bool:
        """Whether any score would differ enough: none is below zero."""
        return self.improves(present, 0.0)

    def note_change(self, instance_id: str, now_s: float) -> None:
        changed_s, dwell_s = self._changes.get(instance_id, (-float("inf"), self._dwell_s))
        is_recent = now_s - changed_s < self._memory_s
        dwell_s = min(self._most_dwell_s, 2 * dwell_s) if is_recent else self._dwell_s
        self._changes[instance_id] = (now_s, dwell_s)

    def may_take(self, form: str, now_s: float) -> bool:
        """Whether the form is new, or the one that replaced it has stayed long enough."""
        changed_s, dwell_s = self._form
        return not self._was_left_lately(form, now_s) or now_s >= changed_s + dwell_s

    def note_form(self, before: str, form: str, now_s: float) -> None:
        """The form `before` is given up for the other."""
        changed_s, dwell_s = self._form
        stayed_s = now_s - changed_s
        if stayed_s >= max(self._memory_s, 2 * dwell_s):
            dwell_s = self._dwell_s
        elif self._was_left_lately(form, now_s):
            dwell_s = min(self._most_form_dwell_s, 2 * dwell_s)
        self._left_s = {name: at_s for name, at_s in self._left_s.items() if self._is_recent(at_s, now_s)}
        self._left_s[before] = now_s
        self._form = now_s, dwell_s

    def _was_left_lately(self, form: str, now_s: float) -> bool:
        return form in self._left_s and self._is_recent(self._left_s[form], now_s)

    def _is_recent(self, at_s: float, now_s: float) -> bool:
        """Whether that was a short while ago; longer than any dwell, lest one that is held is forgotten."""
        return now_s - at_s < max(self._memory_s, 2 * self._form[1])

    def forget(self, present: Collection[str]) -> None:
        """Instances that are gone."""
        if self._changes:
            for name in self._changes.keys() - set(present):
                del self._changes[name]
