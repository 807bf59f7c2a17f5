"""Which policy sets decide: one that acts, and maybe another in its shadow."""

from __future__ import annotations

from collections.abc import Callable

from coordinator.policy.books import Books
from coordinator.policy.decisions import DecisionRing
from coordinator.policy.plan import Plan
from coordinator.policy.scheduler import Scheduler
from coordinator.policy.trials.shadow import Shadow
from coordinator.policy.view import Placement
from coordinator.policy.work import Work
from core.costs import StepShape


class Lineup:
    """A Scheduler for drivers, whoever decides at the moment. A shadow changes no answer."""

    def __init__(self, main: Scheduler) -> None:
        self.shadow: Shadow | None = None
        self._main = main
        self.tick_s = main.tick_s
        self.decisions: DecisionRing = main.decisions

    def place(self, books: Books, now_s: float) -> Placement | None:
        placement = self._main.place(books, now_s)
        if placement is not None and self.shadow is not None:
            said = self._main.decisions.latest
            is_of_it = said is not None and said.subject == placement.request_id
            self.shadow.placed(placement, said if is_of_it else None, now_s)
        return placement

    def plan(self, books: Books, now_s: float) -> Plan:
        plan = self._main.plan(books, now_s)
        if self.shadow is not None:
            self.shadow.planned(plan, now_s)
        return plan

    def note_arrival(self, work: Work, now_s: float) -> None:
        self._tell(lambda scheduler: scheduler.note_arrival(work, now_s))

    def note_step(self, instance_id: str, shape: StepShape, seconds: float) -> None:
        self._tell(lambda scheduler: scheduler.note_step(instance_id, shape, seconds), may_be_skipped=True)

    def note_encode(self, instance_id: str, num_tokens: int, seconds: float) -> None:
        self._tell(
            lambda scheduler: scheduler.note_encode(instance_id, num_tokens, seconds), may_be_skipped=True
        )

    def note_first_token(self, work: Work, ttft_s: float) -> None:
        self._tell(lambda scheduler: scheduler.note_first_token(work, ttft_s))

    def note_finished(self, work: Work, tpot_s: float) -> None:
        self._tell(lambda scheduler: scheduler.note_finished(work, tpot_s))

    def _tell(self, note: Callable[[Scheduler], None], *, may_be_skipped: bool = False) -> None:
        note(self._main)
        if self.shadow is not None:
            self.shadow.tell(note, may_be_skipped=may_be_skipped)
