"""Leases of parts hold the same blocks, a reference each, and end together, whatever happens to them."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core.clock import ManualClock
from kv_transfer.assembly import Assembly
from kv_transfer.blocks import BlockAllocator
from kv_transfer.commits import Arrived
from kv_transfer.layout import PayloadKind
from kv_transfer.leases import LIVE_STATES, QUARANTINE, Arrival, Lease, LeaseGone, LeaseState, LeaseTable
from kv_transfer.processes import ProcessIdentity
from tests.kv_transfer.loopback import KEY

NUM_BLOCKS = 12
LEASE_S, GRACE_S = 10.0, 20.0
ARRIVED = Arrived(8, 2, 2)


class PartLeases(RuleBasedStateMachine):
    """The table alone: parts of two items, by senders that write directly or through this process."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(100.0)
        self.blocks = BlockAllocator(NUM_BLOCKS)
        self.table = LeaseTable({PayloadKind.KV: self.blocks}, self.clock, lease_s=LEASE_S, grace_s=GRACE_S)
        self.granted: list[Lease] = []

    def _live(self, data: st.DataObject) -> Lease | None:
        live = [lease for lease in self.granted if lease.state in LIVE_STATES]
        return data.draw(st.sampled_from(live)) if live else None

    @precondition(lambda self: self.blocks.num_free >= 2)
    @rule(request=st.sampled_from("ab"), head=st.integers(0, 2), is_direct=st.booleans())
    def open(self, request: str, head: int, is_direct: bool) -> None:
        heads = range(head, head + 1)
        assembly = Assembly(self.table.parts(((request, 0), PayloadKind.KV, 0)), range(3))
        if assembly.has_place_for(heads):
            blocks = assembly.parts[0].block_ids
            self.blocks.share(blocks)
        else:
            blocks = tuple(self.blocks.allocate(2))
        lease = self.table.grant(
            (request, 0),
            PayloadKind.KV,
            0,
            8,
            blocks,
            num_planes=2,
            transport="shm" if is_direct else "grpc",
            is_written_directly=is_direct,
            sender_instance_id=f"shard-{head}",
            sender=None,
            heads=heads,
        )
        self.granted.append(lease)

    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        lease = self._live(data)
        if lease is None or lease.state is LeaseState.ARRIVED:
            return
        assembly = Assembly(self.table.parts(lease.item), range(3))
        if assembly.is_completed_by(lease):
            assert {head for part in assembly.parts for head in part.heads} == {0, 1, 2}
            for part in assembly.parts:
                self.blocks.release(self.table.commit(part, ARRIVED))
        else:
            self.table.arrive(lease, Arrival(ARRIVED, ()))
            assert self.table.arrived(lease.lease_id) == ARRIVED

    @rule(data=st.data(), is_confirmed=st.booleans())
    def abort(self, data: st.DataObject, is_confirmed: bool) -> None:
        if lease := self._live(data):
            self.table.abort(lease, "test", is_confirmed=is_confirmed)
            assert self.table.parts(lease.item) == []

    @rule(data=st.data())
    def confirm(self, data: st.DataObject) -> None:
        if self.granted:
            self.table.confirm_stopped(data.draw(st.sampled_from(self.granted)).lease_id)

    @rule(seconds=st.sampled_from([0.0, 4.0, LEASE_S, GRACE_S]))
    def sweep(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.table.sweep()

    @invariant()
    def every_lease_holds_its_blocks(self) -> None:
        self.table.check_integrity()
        self.blocks.check_integrity()
        held = [lease for lease in self.granted if lease.state in LIVE_STATES | QUARANTINE]
        assert self.blocks.num_free == NUM_BLOCKS - len({block for each in held for block in each.block_ids})

    def teardown(self) -> None:
        for seconds in (LEASE_S, GRACE_S):
            self.clock.advance(seconds)
            self.table.sweep()
        assert list(self.table) == []
        assert self.blocks.num_free == NUM_BLOCKS


PartLeases.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestPartLeases = PartLeases.TestCase


def granted(
    table: LeaseTable,
    head: int,
    blocks: tuple[int, ...],
    *,
    is_direct: bool = True,
    sender: ProcessIdentity | None = None,
) -> Lease:
    return table.grant(
        KEY,
        PayloadKind.KV,
        0,
        4,
        blocks,
        num_planes=2,
        transport="shm",
        is_written_directly=is_direct,
        sender_instance_id=f"shard-{head}",
        sender=sender,
        heads=range(head, head + 1),
    )


@pytest.mark.parametrize("is_direct", [True, False])
def test_all_shards_die_at_once(is_direct: bool) -> None:
    blocks = BlockAllocator(4)
    table = LeaseTable({PayloadKind.KV: blocks}, ManualClock(), lease_s=LEASE_S, grace_s=GRACE_S)
    taken = tuple(blocks.allocate(2))
    blocks.share(taken)
    dead = ProcessIdentity(os.getpid(), -1)
    for head in range(2):
        granted(table, head, taken, is_direct=is_direct, sender=dead)
    table.sweep()
    assert list(table) == []
    assert blocks.num_free == 4


def test_integrity_check_finds_a_part_without_its_own_reference() -> None:
    blocks = BlockAllocator(4)
    table = LeaseTable({PayloadKind.KV: blocks}, ManualClock(), lease_s=LEASE_S, grace_s=GRACE_S)
    taken = tuple(blocks.allocate(2))
    granted(table, 0, taken)
    table.check_integrity()
    lease = granted(table, 1, taken)
    with pytest.raises(AssertionError, match="is leased and free"):
        table.check_integrity()
    blocks.share(taken)
    table.check_integrity()
    lease.heads = range(1)
    with pytest.raises(AssertionError, match="two leases for the same heads"):
        table.check_integrity()


def test_an_open_siblings_memory_is_quarantined() -> None:
    blocks = BlockAllocator(4)
    table = LeaseTable({PayloadKind.KV: blocks}, ManualClock(), lease_s=LEASE_S, grace_s=GRACE_S)
    taken = tuple(blocks.allocate(2))
    blocks.share(taken)
    blocks.share(taken)
    arrived, writing, failing = (granted(table, head, taken) for head in range(3))
    table.arrive(arrived, Arrival(ARRIVED, ()))
    table.abort(failing, "test", is_confirmed=True)
    assert (arrived.state, writing.state) == (LeaseState.FREED, LeaseState.ABORTED)
    assert (table.num_quarantined_blocks, blocks.num_free) == (2, 2)
    with pytest.raises(LeaseGone, match="another part of the item ended: test"):
        table.open_lease(writing.lease_id)
    table.confirm_stopped(writing.lease_id)
    assert blocks.num_free == 4
