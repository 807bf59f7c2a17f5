"""A cluster in steps of 50 ms, just good enough to see whether plans settle: no batching, no transfers."""

from __future__ import annotations

from collections.abc import Callable

from coordinator.policy.books import Books
from coordinator.policy.plan import Assignment, Plan
from coordinator.policy.scheduler import Scheduler
from coordinator.policy.work import Work
from tests.coordinator.policy.cluster import books_of, instance
from tests.coordinator.policy.driver import apply

STEP_S = 0.05
TOKEN_S = 0.015  # of decode, whatever the batch


class MiniCluster:
    """Every instance spends each step on its encodes, then its prefills; decodes go on beside them."""

    def __init__(self, scheduler: Scheduler, num_instances: int) -> None:
        self.scheduler = scheduler
        self.books: Books = books_of(*(instance(f"i{number}") for number in range(num_instances)))
        self.plans: list[Plan] = []
        self.changes: list[tuple[float, str, str]] = []  # when, instance, what it plays from then on
        self.now_s = 0.0
        self._left_s: dict[tuple[str, int | None], float] = {}  # of encodes by index, of the prefill for None
        self._ends_s: dict[str, float] = {}
        self._next_tick_s = 0.0
        self._open: list[Work] = []  # not prefilled yet, in order of dispatch

    def run(self, until_s: float, arrivals: Callable[[float], list[Work]]) -> None:
        """`arrivals` says who comes in the step that begins then."""
        while self.now_s < until_s:
            for work in arrivals(self.now_s):
                self.books.queue(work)
                self.scheduler.note_arrival(work, self.now_s)
            if self.now_s >= self._next_tick_s:
                self._next_tick_s += self.scheduler.tick_s
                self._adopt(self.scheduler.plan(self.books, self.now_s))
            self._place()
            self._serve()
            self._end()
            self.now_s = round(self.now_s + STEP_S, 6)
        self.books.check_integrity()

    def _place(self) -> None:
        while (placement := self.scheduler.place(self.books, self.now_s)) is not None:
            work = apply(self.books, placement)
            self._open.append(work)
            self._left_s |= {(work.request_id, at): item.encode_s for at, item in enumerate(work.media)}
            self._left_s[work.request_id, None] = work.prefill_s

    def _serve(self) -> None:
        budget_s = dict.fromkeys(self.books.instances, STEP_S)
        for work in self._open:
            for at, encoder in enumerate(work.placement.encode):
                if at not in work.encoded and budget_s[encoder] > 0:
                    self._spend(work, at, encoder, budget_s)
        for work in self._open:
            if len(work.encoded) == len(work.media) and budget_s[work.placement.prefill] > 0:
                self._spend(work, None, work.placement.prefill, budget_s)
        self._open = [work for work in self._open if not work.is_prefilled]

    def _spend(self, work: Work, at: int | None, name: str, budget_s: dict[str, float]) -> None:
        left_s = self._left_s[work.request_id, at]
        spent_s = min(budget_s[name], left_s)
        self._left_s[work.request_id, at] = left_s - spent_s
        budget_s[name] -= spent_s
        if spent_s == left_s:
            self._done(work, at)

    def _done(self, work: Work, at: int | None) -> None:
        if at is None:
            work.is_prefilled = work.is_handed_over = True
            self._ends_s[work.request_id] = self.now_s + work.reserve_tokens * TOKEN_S
            self.scheduler.note_first_token(work, self.now_s - work.arrival_s)
        else:
            work.encoded.add(at)
        self.books.note(work)

    def _end(self) -> None:
        for request_id, end_s in list(self._ends_s.items()):
            if end_s <= self.now_s:
                work = self.books.running[request_id]
                work.num_outputs = work.reserve_tokens
                self.books.end(work)
                self.scheduler.note_finished(work, TOKEN_S)
                del self._ends_s[request_id]

    def _adopt(self, plan: Plan) -> None:
        """Instances that change take nothing new until they are empty."""
        if not self.plans or plan.version != self.plans[-1].version:
            plan.check()
            self.plans.append(plan)
        for name, book in self.books.instances.items():
            if book.is_drained:
                continue
            wanted = plan.wanted[name]
            if wanted == Assignment(book.roles, book.group):
                if not book.is_open:
                    self.books.set_open(name, True)
            elif book.is_idle:
                self.books.set_roles(name, wanted.roles, wanted.group, self.now_s)
                self.books.set_open(name, True)
                self.changes.append((self.now_s, name, str(wanted)))
            elif book.is_open:
                self.books.set_open(name, False)
