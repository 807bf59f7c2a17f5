"""The coordinator's reconciler on the simulated cluster, and what every instance played when."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from coordinator.policy.books import Books
from coordinator.policy.cost_model import CostModel
from coordinator.policy.plan import Assignment, check_assignments
from coordinator.policy.reconciler import Reconciler
from simulator.config import ClusterConfig
from simulator.events import Events
from simulator.hands import SimulatedHands
from simulator.moves import Moves
from simulator.result import RoleSpan


class Transitions:
    """`opened` is called when an instance has switched and takes new work again."""

    def __init__(
        self, config: ClusterConfig, events: Events, books: Books, moves: Moves, opened: Callable[[], None]
    ) -> None:
        self._events = events
        self._books = books
        self._opened = opened
        costs = CostModel(config.profile)
        hands = SimulatedHands(books, events, moves, self, costs=costs, switch_s=config.switch_s)
        self.reconciler = Reconciler(books, hands, events)
        self._since: dict[str, tuple[float, str]] = {}
        self._spans: list[RoleSpan] = []

    def start(self, wanted: Mapping[str, Assignment]) -> None:
        """The first plan is what the cluster starts with. Raises PlanError if it lacks a stage."""
        for name, book in self._books.instances.items():
            plays = wanted.get(name, Assignment(book.roles, book.group))
            self._books.set_roles(name, plays.roles, plays.group, 0.0)
            self._since[name] = 0.0, str(plays)
        check_assignments(Assignment(book.roles, book.group) for book in self._books.instances.values())

    def check_idle(self) -> None:
        """Raises AssertionError where a transition has not ended."""
        self.reconciler.check_integrity()
        assert self.reconciler.num_under_way == 0, self.reconciler.num_under_way

    def spans(self, now_s: float) -> tuple[RoleSpan, ...]:
        """What every instance played, in order of time."""
        last = [RoleSpan(name, since_s, now_s, what) for name, (since_s, what) in self._since.items()]
        return tuple(sorted((*self._spans, *last), key=lambda span: (span.instance_id, span.start_s)))

    # what the hands tell

    def told(self, instance_id: str) -> None:
        self._mark(instance_id, "")

    def answered(self, instance_id: str, assignment: Assignment) -> None:
        self._books.set_roles(instance_id, assignment.roles, assignment.group, self._events.time_s)
        self._mark(instance_id, str(assignment))
        self.reconciler.note_roles(instance_id, assignment)
        self._opened()

    def _mark(self, name: str, what: str) -> None:
        since_s, before = self._since[name]
        if what != before:
            self._spans.append(RoleSpan(name, since_s, self._events.time_s, before))
            self._since[name] = self._events.time_s, what
