"""What policies see of the cluster, kept up to date change by change.

The dispatcher keeps one on the wall clock, the simulator one on its virtual clock; both tell it of every
change of a request through `note`, which replaces what the request laid on instances before.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import Protocol

from coordinator.policy.journal import Journal
from coordinator.policy.seat import Arm
from coordinator.policy.view import num_blocks
from coordinator.policy.work import Share, Work, shares_of
from core.stages import ModalityGroup, Roles, Stage

_GROUPS = (ModalityGroup.TEXT, ModalityGroup.MULTIMODAL)
_NOTHING = Share()  # never changed


@dataclass(slots=True, eq=False)
class InstanceBook:
    """One instance: what it is, what it plays, and the sum of what lies on it."""

    instance_id: str
    roles: Roles
    group: ModalityGroup
    block_tokens: int
    total_kv_blocks: int
    total_embedding_blocks: int | None = None  # None: not bounded
    max_sequences: int | None = None  # of its decode batch; None: not bounded
    since_s: float = 0.0  # when it took on its present roles and group
    is_open: bool = True  # takes new work; not so in a transition or a drain
    is_pinned: bool = False  # an admin said what it plays: no plan changes it
    is_drained: bool = False  # an admin gives it nothing to do: no plan counts on it
    arm: Arm | None = None  # of the experiment that runs; None: there is none
    load: Share = field(default_factory=Share)

    @property
    def free_kv_blocks(self) -> int:
        return self.total_kv_blocks - self.load.kv_blocks

    def kv_blocks(self, num_tokens: int) -> int:
        return num_blocks(num_tokens, self.block_tokens)

    def has_kv_room(self, num_tokens: int) -> bool:
        return self.kv_blocks(num_tokens) <= self.free_kv_blocks

    def has_embedding_room(self, blocks: int) -> bool:
        total = self.total_embedding_blocks
        return total is None or self.load.embedding_blocks + blocks <= total

    def plays(self, stage: Stage) -> bool:
        return stage in self.roles

    def serves(self, group: ModalityGroup) -> bool:
        return self.group in (group, ModalityGroup.SHARED)

    @property
    def is_idle(self) -> bool:
        load = self.load
        return not (load.encode_items or load.prefills or load.sequences or load.kv_blocks)


class Follower(Protocol):
    """Told of everything that waits."""

    def queued(self, work: Work) -> None: ...

    def unqueued(self, work: Work) -> None:
        """It was dispatched, or has ended."""
        ...


class Books:
    """Instances, waiting work in order, running work. Policies only read it."""

    def __init__(self) -> None:
        self.instances: dict[str, InstanceBook] = {}
        self.running: dict[str, Work] = {}
        self.version = 0  # goes up with every change of instances, for what policies keep about them
        self.journal = Journal()
        self.follower: Follower | None = None
        self._waiting: dict[ModalityGroup, list[tuple[float, str]]] = {group: [] for group in _GROUPS}
        self._queued: dict[str, Work] = {}
        self._num_prioritised = dict.fromkeys(_GROUPS, 0)
        self._waiting_loads = {group: Share() for group in _GROUPS}
        self._shares: dict[str, dict[str, Share]] = {}
        self._block_tokens: dict[str, int] = {}

    # what the driver tells

    def add_instance(self, book: InstanceBook) -> None:
        """Also replaces one of that name; what lies on that is not laid on this."""
        if book.instance_id in self.instances:
            self.remove_instance(book.instance_id)
        self.instances[book.instance_id] = book
        self._block_tokens[book.instance_id] = book.block_tokens
        self.version += 1

    def remove_instance(self, instance_id: str) -> None:
        """The driver requeues or ends what lies on it, now or when it is sure of its end."""
        del self.instances[instance_id]
        del self._block_tokens[instance_id]
        for shares in self._shares.values():
            shares.pop(instance_id, None)
        self.version += 1

    def set_roles(self, instance_id: str, roles: Roles, group: ModalityGroup, now_s: float) -> None:
        book = self.instances[instance_id]
        if (book.roles, book.group) != (roles, group):
            book.roles, book.group, book.since_s = roles, group, now_s
            self.version += 1

    def set_open(self, instance_id: str, is_open: bool) -> None:
        self.instances[instance_id].is_open = is_open
        self.version += 1

    def set_drained(self, instance_id: str, is_drained: bool) -> None:
        self.instances[instance_id].is_drained = is_drained
        self.version += 1

    def set_arm(self, instance_id: str, arm: Arm | None) -> None:
        self.instances[instance_id].arm = arm
        self.version += 1

    def queue(self, work: Work) -> None:
        """New work, or work that has lost its placement, waits for dispatch."""
        self._drop_shares(work.request_id)
        self.running.pop(work.request_id, None)
        self._queued[work.request_id] = work
        insort(self._waiting[work.group], work.order)
        self._num_prioritised[work.group] += work.priority != 0
        self._waiting_loads[work.group].add_waiting(work)
        if self.follower is not None:
            self.follower.queued(work)

    def note(self, work: Work) -> None:
        """Running work has changed: call after every change of a field, the placement included."""
        request_id = work.request_id
        if request_id in self._queued:
            self._unqueue(work)
            self.running[request_id] = work
        before, shares = self._shares.get(request_id), shares_of(work, self._block_tokens)
        self._shares[request_id] = shares
        if before:
            self._replace_shares(before, shares)
        else:
            self._add_shares(shares, 1)

    def note_outputs(self, decoder: str, progress: Iterable[tuple[Work, int]]) -> None:
        """As `note` of running works after they have shown so many tokens each, at a fraction of the cost
        where only the decoder's context grows."""
        shares, grown = self._shares, 0
        for work, num_outputs in progress:
            more = num_outputs - work.num_outputs
            work.num_outputs = num_outputs
            share = shares[work.request_id].get(decoder)
            if share is not None and share.decoding and num_outputs < work.reserve_tokens:
                share.context_tokens += more
                grown += more
            else:
                self.note(work)
        book = self.instances.get(decoder)
        if grown and book is not None:
            book.load.context_tokens += grown
            self.journal.add((decoder,))

    def end(self, work: Work) -> None:
        """Finished, failed or cancelled; unknown work is no error."""
        if work.request_id in self._queued:
            self._unqueue(work)
        self._drop_shares(work.request_id)
        self.running.pop(work.request_id, None)

    # what policies ask

    def waiting(self, group: ModalityGroup) -> Iterator[Work]:
        """In order of dispatch: arrival, moved forward by priority."""
        return (self._queued[name] for _, name in self._waiting[group])

    @property
    def has_waiting(self) -> bool:
        """Whether anything waits for dispatch: asked after every event."""
        return bool(self._queued)

    def num_waiting(self, group: ModalityGroup | None = None) -> int:
        return len(self._queued) if group is None else len(self._waiting[group])

    def waiting_load(self, group: ModalityGroup) -> Share:
        """What waits for dispatch, as encodes and prefills."""
        return self._waiting_loads[group]

    def first_waiting(self, group: ModalityGroup) -> Work | None:
        queue = self._waiting[group]
        return self._queued[queue[0][1]] if queue else None

    def arrived_since(self, group: ModalityGroup, since_s: float) -> Iterator[Work]:
        """Those that arrived then or later, in order; all of the group have one priority."""
        queue = self._waiting[group]
        for place in range(bisect_left(queue, (since_s, "")), len(queue)):
            yield self._queued[queue[place][1]]

    def has_priorities(self, group: ModalityGroup) -> bool:
        """Whether any that waits is of another class than the usual one."""
        return self._num_prioritised[group] > 0

    def queued(self, request_id: str) -> Work:
        """Raises KeyError for one that does not wait."""
        return self._queued[request_id]

    def players(self, stage: Stage, group: ModalityGroup) -> list[InstanceBook]:
        """Open instances that play the stage for the group."""
        return [
            book
            for book in self.instances.values()
            if book.is_open and stage in book.roles and book.serves(group)
        ]

    def check_integrity(self) -> None:
        """Raises AssertionError where the sums are not those of the running work."""
        assert self._shares.keys() == self.running.keys(), "shares of what does not run"
        assert sum(map(len, self._waiting.values())) == len(self._queued)
        for name, book in self.instances.items():
            on_it = [shares_of(work, self._block_tokens).get(name) for work in self.running.values()]
            _check_sum(name, book.load, [share for share in on_it if share is not None])
        for group, load in self._waiting_loads.items():
            _check_sum(group.value, load, [_load_of_waiting(work) for work in self.waiting(group)])

    # verbs

    def _unqueue(self, work: Work) -> None:
        del self._queued[work.request_id]
        queue, entry = self._waiting[work.group], work.order
        place = bisect_left(queue, entry)
        assert queue[place] == entry
        del queue[place]
        self._num_prioritised[work.group] -= work.priority != 0
        self._waiting_loads[work.group].add_waiting(work, -1)
        if self.follower is not None:
            self.follower.unqueued(work)

    def _drop_shares(self, request_id: str) -> None:
        shares = self._shares.pop(request_id, None)
        if shares:
            self._add_shares(shares, -1)

    def _add_shares(self, shares: dict[str, Share], sign: int) -> None:
        instances = self.instances
        for name, share in shares.items():
            book = instances.get(name)
            if book is not None:
                book.load.add(share, sign)
        self.journal.add(shares)

    def _replace_shares(self, before: dict[str, Share], after: dict[str, Share]) -> None:
        """As taking off the one and adding the other, instance by instance."""
        instances = self.instances
        for name, share in before.items():
            book = instances.get(name)
            if book is not None:
                book.load.replace(share, after.get(name, _NOTHING))
        for name, share in after.items():
            if name not in before and (book := instances.get(name)) is not None:
                book.load.add(share)
        self.journal.add(before)
        if after.keys() != before.keys():
            self.journal.add(after)


def _load_of_waiting(work: Work) -> Share:
    load = Share()
    load.add_waiting(work)
    return load


def _check_sum(name: str, load: Share, parts: list[Share]) -> None:
    total = Share()
    for part in parts:
        total.add(part)
    for field_name in (each.name for each in fields(Share)):
        have, want = getattr(load, field_name), getattr(total, field_name)
        assert abs(have - want) < 1e-6, f"{name}.{field_name}: {have}, should be {want}"
