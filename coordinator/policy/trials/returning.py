"""Instances that a trial had, on their way back."""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.policy.books import Books
from coordinator.policy.plan import Assignment, Plan, lacking_stages


class Returning:
    """Has them play again what they did before, where the main set has no opinion about them.

    Each until it does, or is pinned or gone; and none of them as long as a stage would be left to nobody, as
    where an instance has died meanwhile.
    """

    def __init__(self, before: Mapping[str, Assignment]) -> None:
        self._before = dict(before)

    def over(self, plan: Plan, books: Books) -> Plan:
        """The plan, with what is wanted of those that are not back yet."""
        if not self._before:
            return plan
        present = {name: Assignment(book.roles, book.group) for name, book in books.instances.items()}
        self._before = {
            name: before
            for name, before in self._before.items()
            if name not in plan.wanted
            and present.get(name, before) != before
            and not books.instances[name].is_pinned
        }
        wanted = {**plan.wanted, **self._before}
        if lacking_stages({**present, **wanted}.values()):
            return plan
        return Plan(plan.version, wanted)
