"""Moves sequences off an instance that is to play other stages: the reconciler's hands on a live cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from coordinator.errors import CannotMigrateError, NotFoundError
from coordinator.migration import MigrationOutcome
from coordinator.policy.books import Books
from coordinator.policy.plan import Assignment
from coordinator.policy.transition import NOTHING_MOVED, Cleared
from coordinator.policy.work import Work
from coordinator.policy.worth_moving import MoveCostsModel, worth_moving
from coordinator.registry import Registry
from coordinator.stage_messages import SetRolesCommand
from core.stages import Roles

Migrate = Callable[[str, str | None], asyncio.Future[MigrationOutcome]]


class Clearing:
    """Implements Hands. A sequence moves where that is quicker than to let it end where it is.

    What cannot move (no room elsewhere, its KV still on the way) ends in place.
    """

    def __init__(self, books: Books, registry: Registry, migrate: Migrate, costs: MoveCostsModel) -> None:
        self._books = books
        self._registry = registry
        self._migrate = migrate
        self._costs = costs

    def clear(self, instance_id: str, given_up: Roles, on_done: Callable[[Cleared], None]) -> None:
        moving = {
            future
            for work in worth_moving(self._books, instance_id, given_up, self._costs)
            if (future := self._start(work)) is not None
        }
        if not moving:
            on_done(NOTHING_MOVED)
            return
        started = tuple(moving)

        def note(future: asyncio.Future[MigrationOutcome]) -> None:
            moving.discard(future)
            if not moving:
                on_done(_sum(each.result() for each in started))

        for future in started:
            future.add_done_callback(note)

    def set_roles(self, instance_id: str, assignment: Assignment) -> None:
        instance = self._registry.get(instance_id)
        if instance is not None:
            instance.send(SetRolesCommand(assignment.roles, assignment.group))

    def _start(self, work: Work) -> asyncio.Future[MigrationOutcome] | None:
        """None where it cannot move now."""
        try:
            return self._migrate(work.request_id, None)
        except (CannotMigrateError, NotFoundError):
            return None


def _sum(outcomes: Iterable[MigrationOutcome]) -> Cleared:
    moved = [each for each in outcomes if each.has_moved]
    return Cleared(len(moved), sum(each.size_bytes for each in moved))
