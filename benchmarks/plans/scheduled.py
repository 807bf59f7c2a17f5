"""A scheduler whose plan changes at times that are known beforehand."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from coordinator.policy.books import Books
from coordinator.policy.decisions import Decision, DecisionRing
from coordinator.policy.forms import Forms, assignments_of, forms_name
from coordinator.policy.known_plan import KnownPlan, Placing
from coordinator.policy.matching import matched
from coordinator.policy.plan import Assignment, Plan

_TICK_S = 0.25


class ScheduledForms(KnownPlan):
    """Plays the forms of the phase at hand; from one to the next as few instances change as can be."""

    def __init__(
        self,
        starts_s: Sequence[float],
        forms: Sequence[Forms],
        dispatch: Placing,
        decisions: DecisionRing,
    ) -> None:
        """`starts_s` rise from 0; each form is one of all the instances there are."""
        super().__init__(dispatch, decisions, _TICK_S)
        self._starts_s = starts_s
        self._forms = forms
        self._phase: int | None = None

    def plan(self, books: Books, now_s: float) -> Plan:
        phase = bisect_right(self._starts_s, now_s) - 1
        if phase != self._phase:
            self._phase = phase
            self._change(books, self._forms[phase], now_s)
        return self._plan

    def _change(self, books: Books, forms: Forms, now_s: float) -> None:
        present = {
            name: self._plan.wanted.get(name) or Assignment(book.roles, book.group)
            for name, book in books.instances.items()
        }
        wanted = matched(books.instances, present, assignments_of(forms))
        if wanted == self._plan.wanted:
            return
        self._plan = Plan(self._plan.version + 1, wanted)
        numbers = {"changes": float(sum(present[name] != to for name, to in wanted.items()))}
        self.decisions.add(Decision(now_s, "schedule", "cluster", forms_name(forms), numbers))
