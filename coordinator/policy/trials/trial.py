"""Two policy sets at once, each on instances and requests of its own.

whole books ──► instances by arm ──► part of A, part of B ──► each set plans and dispatches over its part
            └─► waiting work by a hash of what it belongs to; to the other arm where its own cannot serve it
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from coordinator.policy.books import Books, InstanceBook
from coordinator.policy.capacity import Capacity, cluster_capacity
from coordinator.policy.plan import GROUPS, Assignment, Plan, lacking_stages, needed_stages
from coordinator.policy.scheduler import Scheduler
from coordinator.policy.seat import Arm, Seat
from coordinator.policy.trials.part import PartOfBooks
from coordinator.policy.trials.shares import arm_of_newcomer, chosen_for_b, home_of
from coordinator.policy.view import Placement
from coordinator.policy.work import Work
from core.stages import ModalityGroup, Roles


class TrialError(ValueError):
    """The instances cannot be divided; the message says why."""


@dataclass(slots=True)
class _Side:
    """One arm: its policy set, its part of the books, and what that part can do."""

    policy: str
    scheduler: Scheduler
    part: PartOfBooks
    played: dict[ModalityGroup, Roles] = field(default_factory=dict)
    capacity: Capacity = field(default_factory=lambda: Capacity((), ()))
    instance_s: float = 0.0  # of its instances, since the start

    def refresh(self, names: Iterable[str]) -> None:
        self.part.show(frozenset(names))
        present = [book for book in self.part.instances.values() if not book.is_drained]
        self.capacity = cluster_capacity(present)
        self.played = {
            group: frozenset().union(*(book.roles for book in present if book.serves(group)))
            for group in GROUPS
        }

    def can_serve(self, work: Work) -> bool:
        if needed_stages(work.group) - self.played.get(work.group, frozenset()):
            return False
        media_tokens = [item.num_tokens for item in work.media]
        fits = self.capacity.fits_prompt(work.context_tokens, media_tokens)
        return fits and self.capacity.fits_total(work.promised_tokens)


class Trial:
    """Decides for both arms while it runs: follows the whole books, and writes the arm of instances there.

    Prefixes and embeddings stay within an arm, since a set knows of its own instances only. What runs at
    the start ends where it is and belongs to neither arm.
    """

    def __init__(
        self,
        experiment: str,
        books: Books,
        sets: dict[Arm, tuple[str, Scheduler]],
        share: float,
        now_s: float,
    ) -> None:
        """`sets`: names and schedulers; they share nothing but, maybe, the ring of decisions.

        `share` of the instances is to be B's. Raises TrialError; nothing is changed then.
        """
        self.experiment = experiment
        self.share = share
        self.since_s = self._counted_s = now_s
        self._books = books
        self._sides = {arm: _Side(*sets[arm], PartOfBooks(books)) for arm in Arm}
        self._share_of_keys = share
        self._was: dict[str, Arm] = {}  # of instances that were there, should they come back
        self._before: dict[str, Assignment] = {}  # what those of B played before
        self._plan = Plan()
        self._begin()

    def place(self, now_s: float) -> Placement | None:
        self._keep_up(now_s)
        for side in self._sides.values():
            placement = side.scheduler.place(side.part, now_s)
            if placement is not None:
                return placement
        return None

    def plan(self, now_s: float) -> Plan:
        self._keep_up(now_s)
        wanted: dict[str, Assignment] = {}
        for side in self._sides.values():
            wanted |= side.scheduler.plan(side.part, now_s).wanted
        if wanted != self._plan.wanted:
            self._plan = Plan(self._plan.version + 1, wanted)
        return self._plan

    def end(self) -> dict[str, Assignment]:
        """All instances and all that waits are the whole books' again; what runs stays where it is.

        Returns what instances of B played before they came to it.
        """
        self._books.follower = None
        for name in self._books.instances:
            self._books.set_arm(name, None)
        for group in GROUPS:
            for work in self._books.waiting(group):
                work.seat = None
        return {name: before for name, before in self._before.items() if name in self._books.instances}

    # whom measurements are for

    def scheduler_of_instance(self, instance_id: str) -> Scheduler:
        book = self._books.instances.get(instance_id)
        return self._sides[Arm.A if book is None else book.arm or Arm.A].scheduler

    def scheduler_of(self, work: Work) -> Scheduler:
        """Work that was there before the experiment is A's."""
        return self._sides[Arm.A if work.seat is None else work.seat.arm].scheduler

    # what the books tell

    def queued(self, work: Work) -> None:
        work.seat = self._seat(work)
        self._sides[work.seat.arm].part.queue(work)

    def unqueued(self, work: Work) -> None:
        if work.seat is not None:
            self._sides[work.seat.arm].part.end(work)

    # what can be asked

    @property
    def tick_s(self) -> float:
        return min(side.scheduler.tick_s for side in self._sides.values())

    def policy(self, arm: Arm) -> str:
        return self._sides[arm].policy

    def instances(self, arm: Arm) -> list[str]:
        return sorted(name for name, book in self._books.instances.items() if book.arm is arm)

    def instance_s(self, arm: Arm, now_s: float) -> float:
        self._count(now_s)
        return self._sides[arm].instance_s

    def check_integrity(self) -> None:
        """Raises AssertionError where the parts are not the whole: instances, and what waits."""
        books = self._books
        parts = [side.part for side in self._sides.values()]
        if not any(part.is_behind for part in parts):
            names = [name for part in parts for name in part.instances]
            assert sorted(names) == sorted(books.instances), f"in parts: {names}"
        for group in GROUPS:
            waiting = [work for part in parts for work in part.waiting(group)]
            assert {id(work) for work in waiting} == {id(work) for work in books.waiting(group)}
            assert len(waiting) == books.num_waiting(group)

    # verbs

    def _begin(self) -> None:
        books = list(self._books.instances.values())
        if len(books) > 1:
            chosen = chosen_for_b(books, self.share)
            arms = {book.instance_id: Arm.B if book.instance_id in chosen else Arm.A for book in books}
            self._check(books, arms)
        elif books:
            raise TrialError("one instance cannot be divided: two arms need one each")
        else:
            arms = {}
        for name, arm in arms.items():
            self._give(name, arm)
        self._books.follower = self
        self._refresh()
        for group in GROUPS:
            for work in self._books.waiting(group):
                self.queued(work)

    def _check(self, books: list[InstanceBook], arms: dict[str, Arm]) -> None:
        """A set that leaves roles as they are cannot mend what the division leaves it without."""
        for arm, side in self._sides.items():
            own = [book for book in books if arms[book.instance_id] is arm]
            lacking = lacking_stages(Assignment(book.roles, book.group) for book in own)
            if lacking and side.policy == "fixed":
                names = ", ".join(
                    sorted({stage.name.lower() for stages in lacking.values() for stage in stages})
                )
                raise TrialError(f"{arm.value} ({side.policy}) would have nobody to play {names}")

    def _keep_up(self, now_s: float) -> None:
        """After instances came, went or changed; otherwise nothing."""
        if not any(side.part.is_behind for side in self._sides.values()):
            return
        self._count(now_s)
        counts = Counter(book.arm for book in self._books.instances.values())
        for name, book in list(self._books.instances.items()):
            if book.arm is None:
                arm = self._was.get(name) or arm_of_newcomer(counts[Arm.A], counts[Arm.B], self.share)
                self._give(name, arm)
                counts[arm] += 1
        self._refresh()
        self._seat_anew()

    def _give(self, name: str, arm: Arm) -> None:
        self._books.set_arm(name, arm)
        if arm is Arm.B:
            book = self._books.instances[name]
            self._before[name] = Assignment(book.roles, book.group)

    def _refresh(self) -> None:
        own: dict[Arm, list[str]] = {arm: [] for arm in Arm}
        for name, book in self._books.instances.items():
            own[book.arm or Arm.A].append(name)
            self._was[name] = book.arm or Arm.A
        for arm, side in self._sides.items():
            side.refresh(own[arm])
        num_b = len(own[Arm.B])
        if own[Arm.A] and num_b:  # an arm without instances keeps its requests' home
            self._share_of_keys = num_b / (len(own[Arm.A]) + num_b)

    def _seat_anew(self) -> None:
        for group in GROUPS:
            for work in self._books.waiting(group):
                before, seat = work.seat, self._seat(work)
                if before is None or before.arm is not seat.arm:
                    self.unqueued(work)
                    self._sides[seat.arm].part.queue(work)
                work.seat = seat

    def _seat(self, work: Work) -> Seat:
        key = work.conversation or work.request_id.encode()
        home = home_of(self.experiment, key, self._share_of_keys)
        is_elsewhere = not self._sides[home].can_serve(work) and self._sides[home.other].can_serve(work)
        return Seat(home, home.other if is_elsewhere else home, self.experiment)

    def _count(self, now_s: float) -> None:
        """The time since the last count, for the instances that the parts had then."""
        for side in self._sides.values():
            side.instance_s += len(side.part.instances) * (now_s - self._counted_s)
        self._counted_s = now_s
