"""A scheduler whose plan is a fixed layout of the instances there are."""

from __future__ import annotations

from typing import Protocol

from coordinator.policy.books import Books
from coordinator.policy.decisions import Decision, DecisionRing
from coordinator.policy.layouts import Layout
from coordinator.policy.plan import Assignment, Plan
from coordinator.policy.view import Placement
from coordinator.policy.work import Work
from core.costs import StepShape


class Placing(Protocol):
    """Asked whenever the books have changed, again and again until it says None."""

    def place(self, books: Books, now_s: float) -> Placement | None:
        """The next waiting request to dispatch now; the driver applies it before it asks again."""
        ...

    def note_first_token(self, work: Work, ttft_s: float) -> None: ...


class FixedScheduler:
    """Dispatches, and plans anew only where an instance came, went or was pinned."""

    def __init__(
        self, name: str, layout: Layout, dispatch: Placing, decisions: DecisionRing, tick_s: float
    ) -> None:
        self.tick_s = tick_s
        self.decisions = decisions
        self._name = name
        self._layout = layout
        self._dispatch = dispatch
        self._plan = Plan()
        self._planned: tuple[Books, int, tuple[str, ...]] | None = None  # what the plan is of

    def place(self, books: Books, now_s: float) -> Placement | None:
        return self._dispatch.place(books, now_s)

    def plan(self, books: Books, now_s: float) -> Plan:
        names = tuple(name for name, book in books.instances.items() if book.is_pinned)
        state = books, books.version, names
        if state != self._planned:
            self._planned = state
            self._renew(books, names, now_s)
        return self._plan

    def _renew(self, books: Books, names: tuple[str, ...], now_s: float) -> None:
        """With these instances pinned."""
        of_pinned = (books.instances[name] for name in names)
        pinned = {book.instance_id: Assignment(book.roles, book.group) for book in of_pinned}
        wanted = self._layout(sorted(books.instances.keys() - pinned.keys())) | pinned
        if wanted != self._plan.wanted:
            self._plan = Plan(self._plan.version + 1, wanted)
            choice = "plays " + ", ".join(f"{name} {wanted[name]}" for name in sorted(wanted))
            numbers = {"instances": float(len(wanted)), "pinned": float(len(pinned))}
            self.decisions.add(Decision(now_s, "layout", self._name, choice, numbers))

    def note_arrival(self, work: Work, now_s: float) -> None:
        """A fixed layout learns nothing."""

    def note_step(self, instance_id: str, shape: StepShape, seconds: float) -> None:
        """A fixed layout learns nothing."""

    def note_encode(self, instance_id: str, num_tokens: int, seconds: float) -> None:
        """A fixed layout learns nothing."""

    def note_first_token(self, work: Work, ttft_s: float) -> None:
        self._dispatch.note_first_token(work, ttft_s)

    def note_finished(self, work: Work, tpot_s: float) -> None:
        """A fixed layout learns nothing."""
