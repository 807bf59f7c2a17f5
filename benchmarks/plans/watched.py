"""Gives a run up as soon as it cannot become good enough any more."""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.policy.books import Books
from coordinator.policy.plan import Plan
from coordinator.policy.scheduler import Scheduler
from coordinator.policy.view import Placement
from coordinator.policy.work import Work
from core.costs import StepShape
from simulator.scenario import Target


class GivenUpError(Exception):
    """More requests than may have missed a target."""


class Watched:
    """A scheduler that decides as the one within, and counts the requests that miss a target."""

    def __init__(self, inner: Scheduler, targets: Mapping[str, Target], most_missed: int) -> None:
        """`targets` by request id."""
        self.tick_s = inner.tick_s
        self.decisions = inner.decisions
        self._inner = inner
        self._targets = targets
        self._most_missed = most_missed
        self._missed: set[str] = set()

    def place(self, books: Books, now_s: float) -> Placement | None:
        return self._inner.place(books, now_s)

    def plan(self, books: Books, now_s: float) -> Plan:
        return self._inner.plan(books, now_s)

    def note_arrival(self, work: Work, now_s: float) -> None:
        self._inner.note_arrival(work, now_s)

    def note_step(self, instance_id: str, shape: StepShape, seconds: float) -> None:
        self._inner.note_step(instance_id, shape, seconds)

    def note_encode(self, instance_id: str, num_tokens: int, seconds: float) -> None:
        self._inner.note_encode(instance_id, num_tokens, seconds)

    def note_first_token(self, work: Work, ttft_s: float) -> None:
        """Raises GivenUpError."""
        self._inner.note_first_token(work, ttft_s)
        if ttft_s > self._targets[work.request_id].ttft_s:
            self._miss(work)

    def note_finished(self, work: Work, tpot_s: float) -> None:
        """Raises GivenUpError."""
        self._inner.note_finished(work, tpot_s)
        if tpot_s > self._targets[work.request_id].tpot_s:
            self._miss(work)

    def _miss(self, work: Work) -> None:
        self._missed.add(work.request_id)
        if len(self._missed) > self._most_missed:
            raise GivenUpError
