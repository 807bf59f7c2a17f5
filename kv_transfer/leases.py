"""Who may write into which blocks of this instance, until when: the receiver's lease table.

    GRANTED ──► WRITING ──► ARRIVED ──► COMMITTED      blocks passed on to the receiver's engine
       │           │           │
       └───────────┴───────────┴──► ABORTED, EXPIRED ──► FREED     blocks went back to the pool

ARRIVED is for parts: where several senders bring one item, each with heads of
its own, their leases hold the same blocks, a reference each. A part that is
committed waits there for the others; one that ends otherwise ends them all.

ABORTED and EXPIRED are the quarantine: the lease is over, but where the sender
writes into this memory itself (shared memory), its blocks are not used again
until it confirms that it stopped, is known to be dead, or a grace period is over
in which it was not seen stopped: a process that goes on ends the copy it was at.
"""

from __future__ import annotations

import secrets
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from core.clock import Clock
from kv_transfer.blocks import BlockAllocator
from kv_transfer.commits import Arrived
from kv_transfer.layout import PayloadKind
from kv_transfer.processes import ProcessIdentity

Key = tuple[str, int]  # request id, attempt
Item = tuple[Key, PayloadKind, int]  # with the index of the media item, 0 for KV

_REMEMBERED_ENDS = 4096


class LeaseState(Enum):
    GRANTED = "granted"  # the sender was told its blocks
    WRITING = "writing"  # something of it was heard since
    ARRIVED = "arrived"  # its part is complete, others of the item are not
    COMMITTED = "committed"  # all arrived, the blocks belong to the engine
    ABORTED = "aborted"  # given up by either end; blocks in quarantine
    EXPIRED = "expired"  # not heard of in time; blocks in quarantine
    FREED = "freed"  # blocks are back in the pool


_S = LeaseState

LEGAL_MOVES: dict[LeaseState, frozenset[LeaseState]] = {
    _S.GRANTED: frozenset({_S.WRITING, _S.ARRIVED, _S.COMMITTED, _S.ABORTED, _S.EXPIRED}),
    _S.WRITING: frozenset({_S.ARRIVED, _S.COMMITTED, _S.ABORTED, _S.EXPIRED}),
    _S.ARRIVED: frozenset({_S.COMMITTED, _S.ABORTED, _S.EXPIRED}),
    _S.ABORTED: frozenset({_S.FREED}),
    _S.EXPIRED: frozenset({_S.FREED}),
    _S.COMMITTED: frozenset(),
    _S.FREED: frozenset(),
}

OPEN_STATES = frozenset({_S.GRANTED, _S.WRITING})
LIVE_STATES = OPEN_STATES | {_S.ARRIVED}
QUARANTINE = frozenset({_S.ABORTED, _S.EXPIRED})


class IllegalLeaseMove(RuntimeError):
    """A lease was moved along no edge of the table."""


class LeaseGone(LookupError):
    """No open lease has this id; says what became of it."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a sender committed of its part."""

    found: Arrived  # what it was answered
    outputs: tuple[int, ...]


@dataclass(slots=True, kw_only=True)
class Lease:
    """One grant. Changed by its table only."""

    lease_id: int
    key: Key
    kind: PayloadKind
    item_index: int  # of an embedding; 0 for KV
    num_tokens: int
    block_ids: tuple[int, ...]
    transport: str
    sender_instance_id: str
    sender: ProcessIdentity | None  # None: on another host, or it did not say
    is_written_directly: bool  # by the sender into this memory, past this process
    num_planes: int
    heads: range  # of the model, that this sender brings of those the receiver holds
    is_prefix: bool  # KV for the receiver's cache
    expires_at_s: float
    state: LeaseState = LeaseState.GRANTED
    reason: str = ""  # why it ended
    quarantined_until_s: float | None = None
    written: list[int] = field(default_factory=list)  # tokens per plane that came through this process
    arrival: Arrival | None = None

    @property
    def item(self) -> Item:
        """What is transferred; one open lease each, or one per part."""
        return self.key, self.kind, self.item_index


class LeaseTable:
    """Used on one thread (the transfer service's loop).

    A granted lease holds one reference to each of its blocks. It expires `lease_s`
    after it was last heard of; quarantine lasts at most `grace_s`, from when the sender
    was last seen stopped. `on_end` is called with every lease that leaves the table.
    """

    def __init__(
        self,
        pools: dict[PayloadKind, BlockAllocator],
        clock: Clock,
        *,
        lease_s: float,
        grace_s: float,
        on_end: Callable[[Lease], None] = lambda _: None,
    ) -> None:
        self.lease_s = lease_s
        self.grace_s = grace_s
        self._pools = pools
        self._clock = clock
        self._on_end = on_end
        self._leases: dict[int, Lease] = {}  # open or in quarantine
        self._ends: OrderedDict[int, tuple[LeaseState, str]] = OrderedDict()
        self._arrived: dict[int, Arrived] = {}  # of those among the ends that were committed

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._leases.values())

    @property
    def num_open(self) -> int:
        return sum(lease.state in OPEN_STATES for lease in self)

    @property
    def num_quarantined_blocks(self) -> int:
        held = ((lease.kind, lease.block_ids) for lease in self if lease.state in QUARANTINE)
        return len({(kind, block) for kind, blocks in held for block in blocks})

    def grant(
        self,
        key: Key,
        kind: PayloadKind,
        item_index: int,
        num_tokens: int,
        block_ids: tuple[int, ...],
        *,
        num_planes: int,
        transport: str,
        is_written_directly: bool,
        sender_instance_id: str,
        sender: ProcessIdentity | None,
        heads: range = range(1),
        is_prefix: bool = False,
    ) -> Lease:
        """Takes over one reference to each of the blocks. Live leases for these heads of the item end."""
        for other in self.parts((key, kind, item_index)):
            if set(other.heads) & set(heads) and other.state in LIVE_STATES:
                self.abort(other, "the sender opened the same transfer again", is_confirmed=False)
        lease = Lease(
            lease_id=self._new_id(),
            key=key,
            kind=kind,
            item_index=item_index,
            num_tokens=num_tokens,
            block_ids=block_ids,
            transport=transport,
            sender_instance_id=sender_instance_id,
            sender=sender,
            is_written_directly=is_written_directly,
            num_planes=num_planes,
            heads=heads,
            is_prefix=is_prefix,
            expires_at_s=self._clock.now_s() + self.lease_s,
            written=[0] * num_planes,
        )
        self._leases[lease.lease_id] = lease
        return lease

    def open_lease(self, lease_id: int) -> Lease:
        """Raises LeaseGone if it is not open."""
        lease = self._leases.get(lease_id)
        if lease is not None and lease.state in OPEN_STATES:
            return lease
        if lease is not None:
            raise LeaseGone(f"lease {lease_id} is {lease.state.value}: {lease.reason}")
        if lease_id in self._ends:
            state, reason = self._ends[lease_id]
            raise LeaseGone(f"lease {lease_id} is {state.value}: {reason}")
        raise LeaseGone(f"lease {lease_id} is not known")

    def arrived(self, lease_id: int) -> Arrived | None:
        """What was committed, if it was and as far as that is remembered."""
        lease = self._leases.get(lease_id)
        if lease is not None and lease.state is LeaseState.ARRIVED and lease.arrival is not None:
            return lease.arrival.found
        return self._arrived.get(lease_id)

    def heard_of(self, lease: Lease) -> None:
        """Its sender gave a sign of life: the expiry moves on."""
        if lease.state is LeaseState.GRANTED:
            self._move(lease, LeaseState.WRITING)
        lease.expires_at_s = self._clock.now_s() + self.lease_s

    def arrive(self, lease: Lease, arrival: Arrival) -> None:
        """Its sender committed; it waits for other parts as long as they live, and `lease_s` after."""
        self._move(lease, LeaseState.ARRIVED)
        lease.arrival = arrival
        lease.reason = "waits for the other parts"
        lease.expires_at_s = self._clock.now_s() + self.lease_s

    def commit(self, lease: Lease, arrived: Arrived) -> tuple[int, ...]:
        """The caller takes over the lease's references to its blocks."""
        self._move(lease, LeaseState.COMMITTED)
        self._arrived[lease.lease_id] = arrived
        self._forget(lease, "all arrived")
        return lease.block_ids

    def abort(self, lease: Lease, reason: str, *, is_confirmed: bool) -> None:
        """Ends a live lease and the other parts. `is_confirmed`: the sender surely writes no more."""
        lease.reason = reason
        self._end(lease, LeaseState.ABORTED, is_confirmed)

    def confirm_stopped(self, lease_id: int) -> None:
        """The sender writes no more: quarantine ends. Unknown leases are no error."""
        lease = self._leases.get(lease_id)
        if lease is not None and lease.state in QUARANTINE:
            self._free(lease)

    def of_request(self, key: Key) -> list[Lease]:
        """Its live leases."""
        return [lease for lease in self if lease.key == key and lease.state in LIVE_STATES]

    def parts(self, item: Item) -> list[Lease]:
        """Its live leases: one, or one for each sender of a part."""
        return [lease for lease in self if lease.item == item and lease.state in LIVE_STATES]

    def sweep(self) -> None:
        """Ends what is overdue or whose sender died, and frees what needs no quarantine any more."""
        now_s = self._clock.now_s()
        for lease in list(self):
            is_dead = lease.sender is not None and not lease.sender.is_alive
            if lease.state in OPEN_STATES:
                if is_dead:
                    self.abort(lease, "the sender's process died", is_confirmed=True)
                elif now_s >= lease.expires_at_s:
                    lease.reason = f"nothing was heard of it for {self.lease_s:g} s"
                    self._end(lease, LeaseState.EXPIRED, False)
            elif lease.state is LeaseState.ARRIVED:
                parts = self.parts(lease.item)
                if now_s >= max(part.expires_at_s for part in parts) and _all_arrived(parts):
                    lease.reason = f"the other parts did not come within {self.lease_s:g} s"
                    self._end(lease, LeaseState.EXPIRED, False)
            elif lease.state in QUARANTINE:
                if not is_dead and lease.sender is not None and lease.sender.is_stopped:
                    lease.quarantined_until_s = now_s + self.grace_s
                elif is_dead or now_s >= (lease.quarantined_until_s or 0.0):
                    self._free(lease)

    def check_integrity(self) -> None:
        """Raises AssertionError if a block is leased for two items, a lease's block is not held
        once for each lease, or parts of one item overlap.
        """
        for kind, blocks in self._pools.items():
            holders: defaultdict[int, list[Lease]] = defaultdict(list)
            for lease in self:
                for block in lease.block_ids if lease.kind is kind else ():
                    holders[block].append(lease)
            for block, leases in holders.items():
                if len({(lease.item, lease.block_ids) for lease in leases}) > 1:
                    raise AssertionError(f"{kind.name} block {block} is in {len(leases)} leases")
                if blocks.references(block) < len(leases):
                    raise AssertionError(f"{kind.name} block {block} is leased and free")
        for item in {lease.item for lease in self}:
            heads = Counter(head for part in self.parts(item) for head in part.heads)
            if heads and max(heads.values()) > 1:
                raise AssertionError(f"{item} has two leases for the same heads")
        for lease in self:
            if lease.state not in LIVE_STATES | QUARANTINE:
                raise AssertionError(f"lease {lease.lease_id} is {lease.state.value} and still in the table")

    def _end(self, lease: Lease, state: LeaseState, is_confirmed: bool) -> None:
        """Ends all parts: what is missing of an item will not come."""
        self._leave(lease, state, is_confirmed)
        for part in self.parts(lease.item):
            part.reason = f"another part of the item ended: {lease.reason}"
            self._leave(part, LeaseState.ABORTED, False)

    def _leave(self, lease: Lease, state: LeaseState, is_confirmed: bool) -> None:
        is_written = lease.state is LeaseState.ARRIVED
        self._move(lease, state)
        if is_confirmed or is_written or not lease.is_written_directly:
            self._free(lease)
        else:
            lease.quarantined_until_s = self._clock.now_s() + self.grace_s

    def _free(self, lease: Lease) -> None:
        ended_as = lease.state
        self._move(lease, LeaseState.FREED)
        self._forget(lease, f"{ended_as.value}, {lease.reason}")
        self._pools[lease.kind].release(lease.block_ids)

    def _forget(self, lease: Lease, reason: str) -> None:
        del self._leases[lease.lease_id]
        self._ends[lease.lease_id] = lease.state, reason
        while len(self._ends) > _REMEMBERED_ENDS:
            forgotten, _ = self._ends.popitem(last=False)
            self._arrived.pop(forgotten, None)
        self._on_end(lease)

    def _new_id(self) -> int:
        """Not to be guessed: whoever names a lease was told of it, and in this life of the instance."""
        while True:
            lease_id = secrets.randbits(63)
            if lease_id and lease_id not in self._leases and lease_id not in self._ends:
                return lease_id

    def _move(self, lease: Lease, wanted: LeaseState) -> None:
        if wanted not in LEGAL_MOVES[lease.state]:
            raise IllegalLeaseMove(f"a lease cannot go from {lease.state.name} to {wanted.name}")
        lease.state = wanted


def _all_arrived(parts: list[Lease]) -> bool:
    """Whether no sender is at work any more that has an expiry of its own."""
    return all(part.state is LeaseState.ARRIVED for part in parts)
