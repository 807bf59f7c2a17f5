"""A scheduler whose plan changes at times that are known beforehand."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from coordinator.policy.books import Books
from coordinator.policy.decisions import Decision, DecisionRing
from coordinator.policy.fixed import Placing
from coordinator.policy.forms import Forms, assignments_of, forms_name
from coordinator.policy.matching import matched
from coordinator.policy.plan import Assignment, Plan
from coordinator.policy.view import Placement
from coordinator.policy.work import Work
from core.costs import StepShape


class ScheduledForms:
    """Plays the forms of the phase at hand; from one to the next as few instances change as can be."""

    tick_s = 0.25

    def __init__(
        self,
        starts_s: Sequence[float],
        forms: Sequence[Forms],
        dispatch: Placing,
        decisions: DecisionRing,
    ) -> None:
        """`starts_s` rise from 0; each form is one of all the instances there are."""
        self.decisions = decisions
        self._starts_s = starts_s
        self._forms = forms
        self._dispatch = dispatch
        self._phase: int | None = None
        self._plan = Plan()

    def place(self, books: Books, now_s: float) -> Placement | None:
        return self._dispatch.place(books, now_s)

    def plan(self, books: Books, now_s: float) -> Plan:
        phase = bisect_right(self._starts_s, now_s) - 1
        if phase != self._phase:
            self._phase = phase
            self._change(books, self._forms[phase], now_s)
        return self._plan

    def note_arrival(self, work: Work, now_s: float) -> None:
        """What is known beforehand is not learned."""

    def note_step(self, instance_id: str, shape: StepShape, seconds: float) -> None:
        """What is known beforehand is not learned."""

    def note_encode(self, instance_id: str, num_tokens: int, seconds: float) -> None:
        """What is known beforehand is not learned."""

    def note_first_token(self, work: Work, ttft_s: float) -> None:
        self._dispatch.note_first_token(work, ttft_s)

    def note_finished(self, work: Work, tpot_s: float) -> None:
        """What is known beforehand is not learned."""

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
