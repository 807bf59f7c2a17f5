"""Instances that the reconciler moves, and that answer when a test lets them."""

from __future__ import annotations

from collections.abc import Callable

from coordinator.policy.books import Books, InstanceBook
from coordinator.policy.plan import (
    GROUPS,
    Assignment,
    lacking_stages,
    needed_stages,
)
from coordinator.policy.reconciler import Reconciler
from coordinator.policy.transition import Cleared
from core.clock import ManualClock
from core.stages import ModalityGroup, Roles, parse_roles

TEXT, MULTI, SHARED = ModalityGroup.TEXT, ModalityGroup.MULTIMODAL, ModalityGroup.SHARED
DEADLINE_S = 5.0


def plays(roles: str, group: ModalityGroup = SHARED) -> Assignment:
    return Assignment(parse_roles(roles), group)


class World:
    """Instances that do as they are told when the test lets them."""

    def __init__(self, *present: Assignment) -> None:
        self.books, self.clock = Books(), ManualClock()
        self.lines: list[str] = []
        self.reconciler = Reconciler(
            self.books, self, self.clock, deadline_s=DEADLINE_S, note=self.lines.append
        )
        self.clearing: list[Callable[[Cleared], None]] = []
        self.telling: list[tuple[str, Assignment]] = []
        self.cleared: list[tuple[str, Roles]] = []
        for index, each in enumerate(present):
            self.books.add_instance(InstanceBook(f"i{index}", each.roles, each.group, 16, 100))

    def clear(self, instance_id: str, given_up: Roles, on_done: Callable[[Cleared], None]) -> None:
        self.cleared.append((instance_id, given_up))
        self.clearing.append(on_done)

    def set_roles(self, instance_id: str, assignment: Assignment) -> None:
        self.telling.append((instance_id, assignment))

    def reconcile(self, *wanted: Assignment) -> None:
        self.reconciler.reconcile({f"i{index}": each for index, each in enumerate(wanted)})

    def finish_clearing(self) -> None:
        for on_done in self._taken(self.clearing):
            on_done(Cleared())

    def answer(self) -> None:
        for name, assignment in self._taken(self.telling):
            self.say(name, assignment)

    def say(self, name: str, assignment: Assignment) -> None:
        if name in self.books.instances:
            self.books.set_roles(name, assignment.roles, assignment.group, self.clock.now_s())
            self.reconciler.note_roles(name, assignment)

    def settle(self) -> None:
        """Until nothing more happens by itself."""
        while self.clearing or self.telling:
            self.finish_clearing()
            self.answer()
            assert not self.lacking, self.present

    def finish_one(self, index: int) -> None:
        """One of the instances that clear or have been told is done with that."""
        if index < len(self.clearing):
            self.clearing.pop(index)(Cleared())
        else:
            self.say(*self.telling.pop(index - len(self.clearing)))

    @property
    def num_pending(self) -> int:
        return len(self.clearing) + len(self.telling)

    def check_one_at_a_time(self) -> None:
        """Where nobody takes new work of a stage and group, no more than one is closed by a switch."""
        for group in GROUPS:
            for stage in needed_stages(group):
                players = [
                    each for each in self.books.instances.values() if each.serves(group) and each.plays(stage)
                ]
                assert any(each.is_open for each in players) or len(players) == 1, (group, stage, players)

    @property
    def present(self) -> list[Assignment]:
        return [Assignment(book.roles, book.group) for book in self.books.instances.values()]

    @property
    def lacking(self) -> dict[ModalityGroup, Roles]:
        return lacking_stages(self.present)

    @staticmethod
    def _taken(things: list) -> list:
        taken, things[:] = list(things), []
        return taken
