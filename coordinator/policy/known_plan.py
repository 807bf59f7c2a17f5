"""What schedulers have in common whose plan does not depend on what is measured."""

from __future__ import annotations

from typing import Protocol

from coordinator.policy.books import Books
from coordinator.policy.decisions import DecisionRing
from coordinator.policy.plan import Plan
from coordinator.policy.view import Placement
from coordinator.policy.work import Work
from core.costs import StepShape


class Placing(Protocol):
    """Asked whenever the books have changed, again and again until it says None."""

    def place(self, books: Books, now_s: float) -> Placement | None:
        """The next waiting request to dispatch now; the driver applies it before it asks again."""
        ...

    def note_first_token(self, work: Work, ttft_s: float) -> None: ...


class KnownPlan:
    """A Scheduler but for `plan`, which is left to say: dispatches as it is given, and learns nothing."""

    def __init__(self, dispatch: Placing, decisions: DecisionRing, tick_s: float) -> None:
        self.tick_s = tick_s
        self.decisions = decisions
        self._dispatch = dispatch
        self._plan = Plan()

    def place(self, books: Books, now_s: float) -> Placement | None:
        return self._dispatch.place(books, now_s)

    def note_first_token(self, work: Work, ttft_s: float) -> None:
        self._dispatch.note_first_token(work, ttft_s)

    def note_arrival(self, work: Work, now_s: float) -> None:
        """Changes no plan."""

    def note_step(self, instance_id: str, shape: StepShape, seconds: float) -> None:
        """Changes no plan."""

    def note_encode(self, instance_id: str, num_tokens: int, seconds: float) -> None:
        """Changes no plan."""

    def note_finished(self, work: Work, tpot_s: float) -> None:
        """Changes no plan."""
