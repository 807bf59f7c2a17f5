"""Which policy sets decide: one that acts, and maybe another beside it or in its shadow."""

from __future__ import annotations

from coordinator.policy.books import Books
from coordinator.policy.decisions import DecisionRing
from coordinator.policy.plan import Plan
from coordinator.policy.scheduler import Scheduler
from coordinator.policy.trials.returning import Returning
from coordinator.policy.trials.shadow import Shadow
from coordinator.policy.trials.trial import Trial
from coordinator.policy.view import Placement
from coordinator.policy.work import Work
from core.costs import StepShape


class Lineup:
    """A Scheduler for drivers, whoever decides at the moment. A shadow changes no answer.

    The main set has all instances, or its arm's while a trial runs. There is a trial or a shadow, never both.
    """

    def __init__(self, main: Scheduler) -> None:
        self.main = main
        self.tick_s = main.tick_s
        self.decisions: DecisionRing = main.decisions
        self.shadow: Shadow | None = None
        self.trial: Trial | None = None
        self._returning = Returning({})

    def begin(self, trial: Trial) -> None:
        self.trial = trial
        self._returning = Returning({})
        self.tick_s = trial.tick_s

    def end_trial(self) -> None:
        """The main set has all instances again, and all that waits; nothing if there is no trial."""
        if self.trial is not None:
            self._returning = Returning(self.trial.end())
            self.trial = None
            self.tick_s = self.main.tick_s

    def place(self, books: Books, now_s: float) -> Placement | None:
        if self.trial is not None:
            return self.trial.place(now_s)
        placement = self.main.place(books, now_s)
        if placement is not None and self.shadow is not None:
            said = self.main.decisions.latest
            is_of_it = said is not None and said.subject == placement.request_id
            self.shadow.placed(placement, said if is_of_it else None, now_s)
        return placement

    def plan(self, books: Books, now_s: float) -> Plan:
        if self.trial is not None:
            return self.trial.plan(now_s)
        plan = self._returning.over(self.main.plan(books, now_s), books)
        if self.shadow is not None:
            self.shadow.planned(plan, now_s)
        return plan

    def note_arrival(self, work: Work, now_s: float) -> None:
        self._of(work).note_arrival(work, now_s)
        if self.shadow is not None:
            self.shadow.tell(lambda shadow: shadow.note_arrival(work, now_s))

    def note_step(self, instance_id: str, shape: StepShape, seconds: float) -> None:
        self._at(instance_id).note_step(instance_id, shape, seconds)
        if self.shadow is not None:
            self.shadow.tell(
                lambda shadow: shadow.note_step(instance_id, shape, seconds), may_be_skipped=True
            )

    def note_encode(self, instance_id: str, num_tokens: int, seconds: float) -> None:
        self._at(instance_id).note_encode(instance_id, num_tokens, seconds)
        if self.shadow is not None:
            self.shadow.tell(
                lambda shadow: shadow.note_encode(instance_id, num_tokens, seconds), may_be_skipped=True
            )

    def note_first_token(self, work: Work, ttft_s: float) -> None:
        self._of(work).note_first_token(work, ttft_s)
        if self.shadow is not None:
            self.shadow.tell(lambda shadow: shadow.note_first_token(work, ttft_s))

    def note_finished(self, work: Work, tpot_s: float) -> None:
        self._of(work).note_finished(work, tpot_s)
        if self.shadow is not None:
            self.shadow.tell(lambda shadow: shadow.note_finished(work, tpot_s))

    def _of(self, work: Work) -> Scheduler:
        return self.main if self.trial is None else self.trial.scheduler_of(work)

    def _at(self, instance_id: str) -> Scheduler:
        return self.main if self.trial is None else self.trial.scheduler_of_instance(instance_id)
