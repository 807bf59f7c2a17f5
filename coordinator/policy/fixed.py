"""A scheduler whose plan is a fixed layout of the instances there are."""

from __future__ import annotations

from collections import Counter

from coordinator.policy.books import Books
from coordinator.policy.decisions import Decision, DecisionRing
from coordinator.policy.forms import layout_name
from coordinator.policy.known_plan import KnownPlan, Placing
from coordinator.policy.layouts import Layout
from coordinator.policy.plan import Assignment, Plan


class FixedScheduler(KnownPlan):
    """Dispatches, and plans anew only where an instance came, went or was pinned."""

    def __init__(self, layout: Layout, dispatch: Placing, decisions: DecisionRing, tick_s: float) -> None:
        super().__init__(dispatch, decisions, tick_s)
        self._layout = layout
        self._planned: tuple[Books, int, tuple[str, ...]] | None = None  # what the plan is of

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
            choice = f"wants {layout_name(Counter(wanted.values())) or 'what there is'}"
            numbers = {"instances": float(len(wanted)), "pinned": float(len(pinned))}
            self.decisions.add(Decision(now_s, "layout", "cluster", choice, numbers))
