"""From what instances play to what the plan wants: close, drain or move, switch, open again."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from coordinator.policy.books import Books, InstanceBook
from coordinator.policy.plan import Assignment, Plan, check_assignments
from coordinator.policy.work import Work
from core.stages import Stage
from simulator.config import ClusterConfig
from simulator.events import Events
from simulator.result import RoleSpan


class Transitions:
    """At most one per instance; a plan that takes a change back opens the instance as it was.

    `move_away(instance, requests)` is asked for decoding requests that stand in the way;
    `opened` is called when an instance takes new work again.
    """

    def __init__(
        self,
        config: ClusterConfig,
        events: Events,
        books: Books,
        move_away: Callable[[str, frozenset[str]], None],
        opened: Callable[[], None],
    ) -> None:
        self._switch_s = config.switch_s
        self._events = events
        self._books = books
        self._move_away = move_away
        self._opened = opened
        self._version: int | None = None
        self._wanted: Mapping[str, Assignment] = {}
        self._closed: set[str] = set()  # draining
        self._switching: dict[str, Assignment] = {}
        self._is_settled = True  # every instance plays what is wanted
        self._since: dict[str, tuple[float, str]] = {}
        self._spans: list[RoleSpan] = []
        self.num_switches = 0

    def start(self, plan: Plan) -> None:
        """The first plan is what the cluster starts with."""
        self._take(plan)
        for name, book in self._books.instances.items():
            wanted = self._want(book)
            self._books.set_roles(name, wanted.roles, wanted.group, 0.0)
            self._since[name] = 0.0, str(wanted)

    def adopt(self, plan: Plan) -> None:
        """Asked every tick: begins what is new, goes on with what is under way, moves what could be moved."""
        if plan.version != self._version:
            self._take(plan)
        elif self._is_settled:
            return
        for name, book in self._books.instances.items():
            if name in self._closed or name in self._switching or self._want(book) == _present(book):
                continue
            self._books.set_open(name, False)
            self._closed.add(name)
        self._is_settled = not (self._closed or self._switching)
        for name in sorted(self._closed):
            if hindering := self._clear(name):
                self._move_away(name, frozenset(work.request_id for work in hindering))

    def check(self, instance_id: str) -> None:
        """Something on the instance has changed."""
        if instance_id in self._closed:
            self._clear(instance_id)

    def spans(self, now_s: float) -> tuple[RoleSpan, ...]:
        """What every instance played, in order of time."""
        last = [RoleSpan(name, since_s, now_s, what) for name, (since_s, what) in self._since.items()]
        return tuple(sorted((*self._spans, *last), key=lambda span: (span.instance_id, span.start_s)))

    def _take(self, plan: Plan) -> None:
        self._version, self._wanted = plan.version, dict(plan.wanted)
        check_assignments(self._want(book) for book in self._books.instances.values())

    def _clear(self, name: str) -> list[Work]:
        """Goes on where nothing is in the way; returns what is."""
        book = self._books.instances[name]
        wanted = self._want(book)
        if wanted == _present(book):
            self._closed.discard(name)
            self._books.set_open(name, True)
            self._opened()
            return []
        if not _may_hinder(book, wanted):
            hindering: list[Work] = []
        else:
            hindering = [work for work in self._books.running.values() if _hinders(work, name, wanted)]
        if not hindering:
            self._closed.discard(name)
            self._switching[name] = wanted
            self._mark(name, "")
            self._events.at(self._events.time_s + self._switch_s, self._switched, name)
        return hindering

    def _switched(self, name: str) -> None:
        wanted = self._switching.pop(name)
        self.num_switches += 1
        self._books.set_roles(name, wanted.roles, wanted.group, self._events.time_s)
        self._mark(name, str(wanted))
        self._books.set_open(name, True)
        self._opened()

    def _mark(self, name: str, what: str) -> None:
        since_s, before = self._since[name]
        self._spans.append(RoleSpan(name, since_s, self._events.time_s, before))
        self._since[name] = self._events.time_s, what

    def _want(self, book: InstanceBook) -> Assignment:
        return self._wanted.get(book.instance_id, _present(book))


def _present(book: InstanceBook) -> Assignment:
    return Assignment(book.roles, book.group)


def _may_hinder(book: InstanceBook, wanted: Assignment) -> bool:
    """A cheap look: whether anything lies here that the wanted assignment might not serve."""
    if book.group is not wanted.group:
        return not book.is_idle
    gone, load = book.roles - wanted.roles, book.load
    return bool(
        (Stage.ENCODE in gone and load.encode_items)
        or (Stage.PREFILL in gone and load.prefills)
        or (Stage.DECODE in gone and load.sequences)
    )


def _hinders(work: Work, name: str, wanted: Assignment) -> bool:
    """Whether a stage of the work that is still to run here could not under the wanted assignment."""
    placement = work.placement
    if placement is None:
        return False
    needed: set[Stage] = set()
    if any(at == name and index not in work.encoded for index, at in enumerate(placement.encode)):
        needed.add(Stage.ENCODE)
    if placement.prefill == name and not work.is_prefilled:
        needed.add(Stage.PREFILL)
    if name in (placement.decode, work.moving_to):
        needed.add(Stage.DECODE)
    serves = wanted.group in (work.group, type(wanted.group).SHARED)
    return bool(needed) and not (serves and needed <= wanted.roles)
