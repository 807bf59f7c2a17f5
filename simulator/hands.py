"""What the reconciler has done for it in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from coordinator.policy.books import Books
from coordinator.policy.plan import Assignment
from coordinator.policy.transition import NOTHING_MOVED, Cleared
from coordinator.policy.worth_moving import MoveCostsModel, worth_moving
from core.stages import Roles
from simulator.events import Events
from simulator.moves import Moves


class SwitchListener(Protocol):
    def told(self, instance_id: str) -> None:
        """The instance is to switch."""
        ...

    def answered(self, instance_id: str, assignment: Assignment) -> None:
        """It plays this from now on."""
        ...


@dataclass(slots=True, eq=False)
class _Leaving:
    """The moves off one instance, until the last has ended."""

    on_done: Callable[[Cleared], None]
    num_pending: int = 0
    cleared: Cleared = NOTHING_MOVED

    def ended(self, size_bytes: int | None) -> None:
        self.num_pending -= 1
        if size_bytes is not None:
            self.cleared = Cleared(self.cleared.num_moved + 1, self.cleared.size_bytes + size_bytes)
        if not self.num_pending:
            self.on_done(self.cleared)


class SimulatedHands:
    """Implements Hands. Work that does not move ends in place: instances play what they were given."""

    def __init__(
        self,
        books: Books,
        events: Events,
        moves: Moves,
        listener: SwitchListener,
        *,
        costs: MoveCostsModel,
        switch_s: float,
    ) -> None:
        self._books = books
        self._events = events
        self._moves = moves
        self._costs = costs
        self._listener = listener
        self._switch_s = switch_s

    def clear(self, instance_id: str, given_up: Roles, on_done: Callable[[Cleared], None]) -> None:
        leaving = _Leaving(on_done)
        for work in worth_moving(self._books, instance_id, given_up, self._costs):
            leaving.num_pending += self._moves.start(work.request_id, leaving.ended)
        if not leaving.num_pending:
            on_done(NOTHING_MOVED)

    def set_roles(self, instance_id: str, assignment: Assignment) -> None:
        """The instance answers `switch_s` later."""
        self._listener.told(instance_id)
        self._events.at(self._events.time_s + self._switch_s, self._answer, (instance_id, assignment))

    def _answer(self, answer: tuple[str, Assignment]) -> None:
        self._listener.answered(*answer)
