"""Asks the policies for a plan every tick, lays what admins have pinned over it, and has it carried out."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from coordinator.errors import CannotPlanError, NotFoundError
from coordinator.paces import Pace, Paces
from coordinator.policy.books import Books, InstanceBook
from coordinator.policy.decisions import Decision
from coordinator.policy.plan import Assignment, Plan, PlanError
from coordinator.policy.reconciler import Reconciler
from coordinator.policy.scheduler import Scheduler
from coordinator.policy.seat import Arm
from coordinator.policy.transition import PastTransition
from core.clock import Clock
from core.stages import ModalityGroup, Roles

log = logging.getLogger(__name__)

_DRAIN_LOOK_S = 0.05
_NAMED = 16  # instances in a message


@dataclass(frozen=True, slots=True)
class PlannedInstance:
    """What one instance plays and is to play; `wanted` is None where the plan has no opinion."""

    instance_id: str
    present: Assignment
    wanted: Assignment | None
    state: str
    since_s: float  # for so long it has played this
    is_pinned: bool
    is_drained: bool
    last_failure: str
    decodes: Pace
    prefills: Pace
    encodes: Pace
    arm: Arm | None = None  # of the trial that runs


@dataclass(frozen=True, slots=True)
class PlanStatus:
    policy: str
    version: int
    instances: tuple[PlannedInstance, ...]
    num_done: int
    num_rolled_back: int
    past: tuple[PastTransition, ...] = ()  # the newest ones, oldest first


class Planner:
    """Everything runs on the coordinator's loop."""

    def __init__(
        self,
        name: str,
        scheduler: Scheduler,
        books: Books,
        reconciler: Reconciler,
        clock: Clock,
        *,
        paces: Paces,
    ) -> None:
        self._name = name
        self._scheduler = scheduler
        self._books = books
        self._reconciler = reconciler
        self._clock = clock
        self._paces = paces
        self._pins: dict[str, Assignment] = {}
        self._plan = Plan()
        self._refused_version: int | None = None

    def tick(self) -> None:
        self._reconciler.expire()
        self._plan = self._scheduler.plan(self._books, self._clock.now_s())
        try:
            self._reconciler.reconcile({**self._plan.wanted, **self._pins})
        except PlanError as error:
            if self._refused_version != self._plan.version:
                log.warning("plan %d is not carried out: %s", self._plan.version, error)
            self._refused_version = self._plan.version

    async def run_forever(self) -> None:
        while True:
            await asyncio.sleep(self._scheduler.tick_s)
            try:
                self.tick()
            except Exception:
                log.exception("a planning tick failed; the instances go on as they are")

    def lose(self, instance_id: str) -> None:
        """The instance is gone; what was pinned or drained is forgotten."""
        self._pins.pop(instance_id, None)
        self._reconciler.lose(instance_id)
        self._paces.forget(instance_id)

    def note_roles(self, instance_id: str, assignment: Assignment) -> None:
        self._reconciler.note_roles(instance_id, assignment)

    # what admins ask and order

    def status(self) -> PlanStatus:
        return PlanStatus(
            policy=self._name,
            version=self._plan.version,
            instances=tuple(self._planned(book) for book in self._books.instances.values()),
            num_done=self._reconciler.num_done,
            num_rolled_back=self._reconciler.num_rolled_back,
            past=tuple(self._reconciler.past),
        )

    def why(
        self, subject: str | None, limit: int | None, without: frozenset[str] = frozenset()
    ) -> tuple[Decision, ...]:
        """The newest `limit` decisions about a request or instance, oldest first; all for None.

        `without` names pieces whose decisions are left out.
        """
        found = tuple(self._scheduler.decisions.about(subject, without))
        return found if limit is None else found[-limit:]

    def pin(self, instance_id: str, roles: Roles | None, group: ModalityGroup | None) -> None:
        """None: as it is. Raises NotFoundError, CannotPlanError."""
        book = self._book(instance_id)
        pinned = Assignment(roles or book.roles, group or book.group)
        pins = {**self._pins, instance_id: pinned}
        try:
            self._reconciler.reconcile({**self._plan.wanted, **pins})
        except PlanError as error:
            raise CannotPlanError(f"{instance_id} cannot be pinned to {pinned}: {error}") from None
        self._pins = pins
        book.is_pinned = True
        self._say(instance_id, f"pinned to {pinned}")

    def unpin(self, instance_id: str) -> None:
        """Raises NotFoundError."""
        self._book(instance_id).is_pinned = False
        if self._pins.pop(instance_id, None) is not None:
            self._say(instance_id, "left to the policies again")
        self.tick()

    async def drain(self, instance_id: str) -> None:
        """Returns when nothing lies on the instance any more; cancelling stops the waiting only.

        Raises NotFoundError, CannotPlanError.
        """
        self._book(instance_id)
        while self._reconciler.must_stay_open(instance_id):  # noqa: ASYNC110  (no longer than a switch)
            await asyncio.sleep(_DRAIN_LOOK_S)
        book = self._book(instance_id)
        await self._clear(instance_id)
        while self._reconciler.is_drained(instance_id) and not book.is_idle:
            await asyncio.sleep(_DRAIN_LOOK_S)
            if self._reconciler.is_drained(instance_id):
                await self._clear(instance_id)

    def resume(self, instance_id: str) -> None:
        """Raises NotFoundError."""
        was_drained = self._book(instance_id).is_drained
        self._reconciler.resume(instance_id)
        if was_drained:
            self._say(instance_id, "takes work again")

    async def _clear(self, instance_id: str) -> None:
        """Drains it, and waits until what can move away has."""
        cleared, was_drained = asyncio.Event(), self._book(instance_id).is_drained
        try:
            self._reconciler.drain(instance_id, cleared.set)
        except PlanError as error:
            raise CannotPlanError(f"{instance_id} cannot be drained: {error}") from None
        if not was_drained:
            self._say(instance_id, "drained: gets no more work")
        await cleared.wait()

    def _book(self, instance_id: str) -> InstanceBook:
        book = self._books.instances.get(instance_id)
        if book is None:
            there = ", ".join(list(self._books.instances)[:_NAMED]) or "none"
            raise NotFoundError("instance_id", f"no instance {instance_id!r} is attached (there: {there})")
        return book

    def _say(self, instance_id: str, choice: str) -> None:
        """An admin's order is a decision too: why an instance plays what it does."""
        self._scheduler.decisions.add(Decision(self._clock.now_s(), "admin", instance_id, choice))

    def _planned(self, book: InstanceBook) -> PlannedInstance:
        name = book.instance_id
        return PlannedInstance(
            instance_id=name,
            present=Assignment(book.roles, book.group),
            wanted=self._pins.get(name) or self._plan.wanted.get(name),
            state=self._reconciler.state_of(name),
            since_s=self._clock.now_s() - book.since_s,
            is_pinned=book.is_pinned,
            is_drained=self._reconciler.is_drained(name),
            last_failure=self._reconciler.last_failure.get(name, ""),
            decodes=self._paces.decodes[name],
            prefills=self._paces.prefills[name],
            encodes=self._paces.encodes[name],
            arm=book.arm,
        )
