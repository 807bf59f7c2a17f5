"""Brings the cluster from what it is to what the plan wants, one transition per instance at a time.

    plan ──► which instances differ ──► closed ──► cleared ──► switched ──► open again
                                          └── deadline passed: back to what it was ──┘

Every instance has all stages' weights, so work that it holds of a stage it gives up may end in place: a
transition waits only for sequences that are worth moving away. The last open instance of a stage and group
is not closed while another one of them is: it switches when that has opened again. While an experiment runs,
all this goes for each arm by itself. The same code runs live and in the simulator; only hands and clock
differ.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from coordinator.policy.books import Books, InstanceBook
from coordinator.policy.plan import GROUPS, Assignment, check_assignments, lacking_stages, needed_stages
from coordinator.policy.seat import Arm
from coordinator.policy.transition import Cleared, PastTransition, Transition, TransitionState
from core.clock import Clock
from core.stages import ModalityGroup, Roles, Stage

DEADLINE_S = 30.0  # for each state of a transition
_KEPT_TRANSITIONS = 64


class Hands(Protocol):
    """What the reconciler has done for it."""

    def clear(self, instance_id: str, given_up: Roles, on_done: Callable[[Cleared], None]) -> None:
        """Moves away what is worth moving of the stages given up; `on_done` is called once, maybe at once."""
        ...

    def set_roles(self, instance_id: str, assignment: Assignment) -> None:
        """Tells the instance; it answers through `note_roles`, or never."""
        ...


class Reconciler:
    """`note_roles` and `lose` are for the cluster, `reconcile` and `expire` for the planner's tick."""

    def __init__(
        self,
        books: Books,
        hands: Hands,
        clock: Clock,
        *,
        deadline_s: float = DEADLINE_S,
        note: Callable[[str], None] | None = None,
    ) -> None:
        """`note` gets a line in words for the start and the end of every transition."""
        self._books = books
        self._hands = hands
        self._clock = clock
        self._deadline_s = deadline_s
        self._note = note or _keep_silent
        self._wanted: dict[str, Assignment] = {}
        self._settled: tuple[int, dict[str, Assignment]] | None = None  # books, and what was wanted of them
        self._under_way: dict[str, Transition] = {}
        self.last_failure: dict[str, str] = {}
        self.num_done = 0
        self.num_rolled_back = 0
        self.past: deque[PastTransition] = deque(maxlen=_KEPT_TRANSITIONS)

    def reconcile(self, wanted: Mapping[str, Assignment]) -> None:
        """Starts what can be started now towards `wanted`, by instance; unknown instances are left out.

        Raises PlanError if the plan would leave a group without a stage that it needs; nothing is begun.
        """
        state = (self._books.version, dict(wanted))
        if state == self._settled:
            return  # nothing was to be started then, nothing was under way, and neither has changed
        present = self._books.instances
        for arm in {book.arm for book in present.values()}:
            own = [book for book in present.values() if book.arm is arm]
            if not lacking_stages(map(self._assignment, own)):
                meant = {book.instance_id: self._assignment(book) for book in own if not book.is_drained}
                check_assignments(wanted.get(name, each) for name, each in meant.items())
        self._wanted = {name: wanted[name] for name in present if name in wanted}
        for name in self._wanted:
            self._start_if_due(name)
        is_settled = not self._under_way and state[0] == self._books.version
        self._settled = state if is_settled else None

    def note_roles(self, instance_id: str, assignment: Assignment) -> None:
        """The instance says what it plays; the books know already."""
        transition = self._under_way.get(instance_id)
        if transition is None:
            return
        if transition.state is TransitionState.SWITCHING and assignment == transition.after:
            self._end(transition, TransitionState.DONE)
        elif transition.state is TransitionState.RETURNING and assignment == transition.before:
            self._end(transition, TransitionState.ROLLED_BACK)

    def lose(self, instance_id: str) -> None:
        """The instance is gone."""
        transition = self._under_way.get(instance_id)
        if transition is not None:
            self._end(transition, TransitionState.LOST)

    def expire(self) -> None:
        """Rolls back what has taken too long."""
        now_s = self._clock.now_s()
        for transition in tuple(self._under_way.values()):
            if now_s < transition.deadline_s:
                continue
            late = f"{transition.state.value} took over {self._deadline_s:g} s"
            if transition.state is TransitionState.CLEARING:
                self.last_failure[transition.instance_id] = late
                self._end(transition, TransitionState.ROLLED_BACK)
            elif transition.state is TransitionState.SWITCHING:
                self.last_failure[transition.instance_id] = late
                transition.move(TransitionState.RETURNING)
                transition.deadline_s = now_s + self._deadline_s
                self._hands.set_roles(transition.instance_id, transition.before)
            else:  # asked again for as long as it is there
                transition.deadline_s = now_s + self._deadline_s
                self._hands.set_roles(transition.instance_id, transition.before)

    def drain(self, instance_id: str, on_done: Callable[[], None]) -> None:
        """Gives the instance nothing new and moves its decoding away; `on_done` once that has been tried.

        Raises PlanError if a group would lack a stage without it, now or once the others play what is wanted.
        """
        arm = self._books.instances[instance_id].arm
        others = {
            name: self._assignment(book)
            for name, book in self._books.instances.items()
            if name != instance_id and not book.is_drained and book.arm is arm
        }
        check_assignments(others.values())
        check_assignments(self._wanted.get(name, present) for name, present in others.items())
        self._books.set_drained(instance_id, True)
        self._books.set_open(instance_id, False)
        self._hands.clear(instance_id, frozenset(Stage), lambda _: on_done())

    def resume(self, instance_id: str) -> None:
        """Work comes to the instance again."""
        if instance_id in self._books.instances:
            self._books.set_drained(instance_id, False)
            self._books.set_open(instance_id, instance_id not in self._under_way)

    # what can be asked

    def state_of(self, instance_id: str) -> str:
        transition = self._under_way.get(instance_id)
        if transition is not None:
            return f"{transition.state.value}, to {transition.after}"
        book = self._books.instances[instance_id]
        if book.is_drained:
            return "drained" if book.is_idle else "draining"
        return "serving"

    def is_drained(self, instance_id: str) -> bool:
        book = self._books.instances.get(instance_id)
        return book is not None and book.is_drained

    def must_stay_open(self, instance_id: str) -> bool:
        """Whether it is the last open one of a stage and group of which another is in a transition."""
        book = self._books.instances.get(instance_id)
        if book is None or not book.is_open:
            return False
        return any(
            self._only_here(instance_id, group) & self._in_transition(group, book.arm) for group in GROUPS
        )

    @property
    def num_under_way(self) -> int:
        return len(self._under_way)

    def check_integrity(self) -> None:
        """Raises AssertionError where an instance is closed that is neither drained nor in a transition."""
        for name, book in self._books.instances.items():
            is_closed = name in self._under_way or self.is_drained(name)
            assert book.is_open is not is_closed, f"{name}: open {book.is_open}, {self.state_of(name)}"
        assert self._under_way.keys() <= self._books.instances.keys()

    # verbs

    def _start_if_due(self, name: str) -> None:
        if name in self._under_way or self.is_drained(name):
            return
        book = self._books.instances[name]
        before, wanted = self._assignment(book), self._wanted[name]
        if wanted == before or self.must_stay_open(name):
            return
        after = self._next_step(name)
        if after == before or (after != wanted and self._under_way):
            return  # a step on the way only where no transition at hand may spare it
        now_s = self._clock.now_s()
        transition = Transition(
            name,
            before,
            after,
            now_s,
            now_s + self._deadline_s,
            num_resident=book.load.prefills + book.load.sequences,
        )
        self._under_way[name] = transition
        self._books.set_open(name, False)
        self._note(f"instance {name}: from {before} to {after}")
        self._hands.clear(
            name, before.roles - after.roles, lambda cleared: self._cleared(transition, cleared)
        )

    def _cleared(self, transition: Transition, cleared: Cleared) -> None:
        if transition.state is TransitionState.CLEARING:
            now_s = self._clock.now_s()
            transition.cleared, transition.cleared_s = cleared, now_s
            transition.move(TransitionState.SWITCHING)
            transition.deadline_s = now_s + self._deadline_s
            self._hands.set_roles(transition.instance_id, transition.after)

    def _end(self, transition: Transition, state: TransitionState) -> None:
        name = transition.instance_id
        transition.move(state)
        del self._under_way[name]
        now_s = self._clock.now_s()
        plays = transition.after if state is TransitionState.DONE else transition.before
        took_s = now_s - transition.started_s
        self._note(f"instance {name}: {state.value} after {took_s:.3f} s, plays {plays}")
        if state is TransitionState.LOST:
            return
        if not self.is_drained(name):
            self._books.set_open(name, True)
        if state is TransitionState.DONE:
            self.num_done += 1
            self._keep(transition, now_s)
            self.last_failure.pop(name, None)
            for other in self._wanted:  # that may have waited for this one to take over a stage
                if other in self._books.instances:
                    self._start_if_due(other)
        else:
            self.num_rolled_back += 1
            self._keep(transition, now_s)

    def _keep(self, transition: Transition, now_s: float) -> None:
        self.past.append(transition.past(self.num_done + self.num_rolled_back, now_s))

    def _next_step(self, name: str) -> Assignment:
        """Towards what is wanted, keeping every stage that only this instance plays for a group."""
        wanted = self._wanted[name]
        roles, group = wanted.roles, wanted.group
        for served in GROUPS:
            only_here = self._only_here(name, served)
            if only_here - (wanted.roles if wanted.serves(served) else frozenset()):
                roles |= only_here
                group = group if wanted.serves(served) else ModalityGroup.SHARED
        return Assignment(roles, group)

    def _only_here(self, name: str, group: ModalityGroup) -> Roles:
        """Stages that the group needs, this instance plays, and no other one that takes work."""
        book = self._books.instances[name]
        if not book.serves(group):
            return frozenset()
        return (book.roles & needed_stages(group)) - self._played_by_others(name, group)

    def _in_transition(self, group: ModalityGroup, arm: Arm | None) -> Roles:
        """What instances of the arm that switch play for the group, or are about to."""
        own = (each for name, each in self._under_way.items() if self._books.instances[name].arm is arm)
        ends = (end for each in own for end in (each.before, each.after))
        return frozenset().union(*(end.roles for end in ends if end.serves(group)))

    def _played_by_others(self, name: str, group: ModalityGroup) -> Roles:
        """By instances of the same arm that take work and stay as they are for now."""
        arm = self._books.instances[name].arm
        return frozenset().union(
            *(
                book.roles
                for other, book in self._books.instances.items()
                if other != name and book.is_open and book.serves(group) and book.arm is arm
            )
        )

    @staticmethod
    def _assignment(book: InstanceBook) -> Assignment:
        return Assignment(book.roles, book.group)


def _keep_silent(_: str) -> None: ...
