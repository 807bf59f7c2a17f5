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

    def plan(self, books: Books, now_s: float) -> Plan:
        pinned = {
            name: Assignment(book.roles, book.group)
            for name, book in books.instances.items()
            if book.is_pinned
        }
        wanted = self._layout(sorted(books.instances.keys() - pinned.keys())) | pinned
        if wanted != self._plan.wanted:
            self._plan = Plan(self._plan.version + 1, wanted)
            choice = f"wants {layout_name(Counter(wanted.values())) or 'what there is'}"
            numbers = {"instances": float(len(wanted)), "pinned": float(len(pinned))}
            self.decisions.add(Decision(now_s, "layout", "cluster", choice, numbers))
        return self._plan
