"""Moves sequences off an instance that is to play other stages: the reconciler's hands on a live cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from coordinator.errors import CannotMigrateError, NotFoundError
from coordinator.migration import MigrationOutcome
from coordinator.policy.books import Books
from coordinator.policy.plan import Assignment
from coordinator.policy.work import Work
from coordinator.registry import Registry
from coordinator.stage_messages import SetRolesCommand
from coordinator.transition import NOTHING_MOVED, Cleared
from core.stages import Roles, Stage

Migrate = Callable[[str, str | None], asyncio.Future[MigrationOutcome]]


class MoveCostsModel(Protocol):
    """Predicted seconds."""

    def decode_step_s(self, num_sequences: int, context_tokens: int) -> float: ...

    def kv_move_s(self, num_tokens: int) -> float: ...


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
        moving: set[asyncio.Future[MigrationOutcome]] = set()
        if Stage.DECODE in given_up:
            is_leaving = given_up == frozenset(Stage)
            moving = {
                future
                for work in tuple(self._decoding_on(instance_id))
                if is_leaving or self._is_worth_moving(work, instance_id)
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

    def _decoding_on(self, instance_id: str) -> Iterator[Work]:
        return (
            work
            for work in self._books.running.values()
            if work.placement is not None and work.placement.decode == instance_id
        )

    def _is_worth_moving(self, work: Work, instance_id: str) -> bool:
        load = self._books.instances[instance_id].load
        left_tokens = max(1, work.reserve_tokens - work.num_outputs)
        step_s = self._costs.decode_step_s(max(1, load.decoding), load.context_tokens)
        return left_tokens * step_s > self._costs.kv_move_s(work.context_tokens)

    def _start(self, work: Work) -> asyncio.Future[MigrationOutcome] | None:
        """None where it cannot move now."""
        try:
            return self._migrate(work.request_id, None)
        except (CannotMigrateError, NotFoundError):
            return None


def _sum(outcomes: Iterable[MigrationOutcome]) -> Cleared:
    moved = [each for each in outcomes if each.has_moved]
    return Cleared(len(moved), sum(each.size_bytes for each in moved))
