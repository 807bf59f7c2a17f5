"""Whatever happens to leases, no block has two owners and every block comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core.clock import ManualClock
from kv_transfer.blocks import BlockAllocator
from kv_transfer.commits import Arrived
from kv_transfer.layout import PayloadKind
from kv_transfer.leases import (
    LEGAL_MOVES,
    OPEN_STATES,
    QUARANTINE,
    IllegalLeaseMove,
    Lease,
    LeaseGone,
    LeaseState,
    LeaseTable,
)
from kv_transfer.processes import ProcessIdentity, identify

LEASE_S = 10.0
GRACE_S = 20.0
NUM_BLOCKS = 12
ARRIVED = Arrived(12, 2, 3)


class Setup:
    """A table over one pool, and time by hand."""

    def __init__(self) -> None:
        self.clock = ManualClock(100.0)
        self.blocks = BlockAllocator(NUM_BLOCKS)
        self.table = LeaseTable({PayloadKind.KV: self.blocks}, self.clock, lease_s=LEASE_S, grace_s=GRACE_S)

    def grant(
        self,
        count: int = 3,
        request: str = "req",
        *,
        is_direct: bool = True,
        sender: ProcessIdentity | None = None,
    ) -> Lease:
        return self.table.grant(
            (request, 0),
            PayloadKind.KV,
            0,
            count * 4,
            tuple(self.blocks.allocate(count)),
            num_planes=2,
            transport="shm" if is_direct else "grpc",
            is_written_directly=is_direct,
            sender_instance_id="sender",
            sender=sender,
        )


class Leases(RuleBasedStateMachine):
    """Compares the table with what each lease's history says about its blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.setup_ = Setup()
        self.table = self.setup_.table
        self.granted: list[Lease] = []
        self.engine: list[int] = []  # blocks that were handed over

    def _some(self, data: st.DataObject, states: frozenset[LeaseState]) -> Lease | None:
        some = [lease for lease in self.granted if lease.state in states]
        return data.draw(st.sampled_from(some)) if some else None

    @precondition(lambda self: self.setup_.blocks.num_free > 0)
    @rule(data=st.data(), request=st.sampled_from("abcd"), is_direct=st.booleans())
    def grant(self, data: st.DataObject, request: str, is_direct: bool) -> None:
        count = data.draw(st.integers(1, self.setup_.blocks.num_free))
        before = self.table.of_request((request, 0))
        self.granted.append(self.setup_.grant(count, request, is_direct=is_direct))
        assert not any(lease.state in OPEN_STATES for lease in before)

    @rule(data=st.data())
    def hear(self, data: st.DataObject) -> None:
        if lease := self._some(data, OPEN_STATES):
            self.table.heard_of(lease)

    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        if lease := self._some(data, OPEN_STATES):
            self.engine += self.table.commit(lease, ARRIVED)

    @rule(data=st.data(), is_confirmed=st.booleans())
    def abort(self, data: st.DataObject, is_confirmed: bool) -> None:
        if lease := self._some(data, OPEN_STATES):
            self.table.abort(lease, "test", is_confirmed=is_confirmed)

    @rule(data=st.data())
    def confirm(self, data: st.DataObject) -> None:
        if self.granted:
            lease = data.draw(st.sampled_from(self.granted))
            was = lease.state
            self.table.confirm_stopped(lease.lease_id)
            assert lease.state is (LeaseState.FREED if was in QUARANTINE else was)

    @rule(seconds=st.sampled_from([0.0, 4.0, LEASE_S, GRACE_S]))
    def sweep(self, seconds: float) -> None:
        self.setup_.clock.advance(seconds)
        self.table.sweep()
        now_s = self.setup_.clock.now_s()
        assert all(lease.expires_at_s > now_s for lease in self.table if lease.state in OPEN_STATES)

    @rule(data=st.data())
    def use(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(0, len(self.engine)))
        done, self.engine = self.engine[:count], self.engine[count:]
        self.setup_.blocks.release(done)

    @invariant()
    def every_block_has_one_holder(self) -> None:
        self.table.check_integrity()
        self.setup_.blocks.check_integrity()
        live = [lease for lease in self.granted if lease.state in OPEN_STATES | QUARANTINE]
        leased = [block for lease in live for block in lease.block_ids]
        held = leased + self.engine
        assert len(held) == len(set(held))
        assert self.setup_.blocks.num_free == NUM_BLOCKS - len(held)

    def teardown(self) -> None:
        self.setup_.clock.advance(LEASE_S)
        self.table.sweep()
        self.setup_.clock.advance(GRACE_S)
        self.table.sweep()
        self.setup_.blocks.release(self.engine)
        assert list(self.table) == []
        assert self.setup_.blocks.num_free == NUM_BLOCKS


Leases.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestLeases = Leases.TestCase


@pytest.mark.parametrize("state", [LeaseState.COMMITTED, LeaseState.FREED])
def test_final_states_have_no_way_out(state: LeaseState) -> None:
    assert LEGAL_MOVES[state] == frozenset()


def test_an_illegal_move_raises() -> None:
    made = Setup()
    lease = made.grant()
    made.table.commit(lease, ARRIVED)
    with pytest.raises(IllegalLeaseMove, match="from COMMITTED to ABORTED"):
        made.table.abort(lease, "late", is_confirmed=True)


def test_memory_that_a_sender_may_still_write_is_not_reused() -> None:
    made = Setup()
    lease = made.grant(3)
    made.clock.advance(LEASE_S)
    made.table.sweep()
    assert lease.state is LeaseState.EXPIRED
    assert made.blocks.num_free == NUM_BLOCKS - 3
    assert made.table.num_quarantined_blocks == 3
    made.clock.advance(GRACE_S)
    made.table.sweep()
    assert made.blocks.num_free == NUM_BLOCKS


def test_bytes_that_come_through_this_process_need_no_quarantine() -> None:
    made = Setup()
    made.table.abort(made.grant(is_direct=False), "cancelled", is_confirmed=False)
    assert made.blocks.num_free == NUM_BLOCKS


def test_a_dead_senders_blocks_come_back_at_once() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        sender = identify(child.pid)
        assert sender is not None
        made = Setup()
        held = made.grant(2, "held", sender=sender)
        ended = made.grant(2, "ended", sender=sender)
        made.table.abort(ended, "cancelled", is_confirmed=False)
        made.table.sweep()
        assert (held.state, ended.state) == (LeaseState.GRANTED, LeaseState.ABORTED)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie is dead, too
        made.table.sweep()
    assert made.blocks.num_free == NUM_BLOCKS


def test_quarantine_lasts_while_the_sender_is_stopped_and_a_grace_period_after() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        made = Setup()
        lease = made.grant(sender=identify(child.pid))
        made.table.abort(lease, "cancelled", is_confirmed=False)
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        made.clock.advance(GRACE_S)
        made.table.sweep()
        child.send_signal(signal.SIGCONT)
        os.waitid(os.P_PID, child.pid, os.WCONTINUED)
        made.clock.advance(GRACE_S - 1)
        made.table.sweep()
        assert lease.state is LeaseState.ABORTED
        made.clock.advance(1)
        made.table.sweep()
        assert lease.state is LeaseState.FREED
        child.kill()


def test_a_lease_that_is_gone_says_why() -> None:
    made = Setup()
    expired, aborted, committed = made.grant(1, "a"), made.grant(1, "b", is_direct=False), made.grant(1, "c")
    made.table.commit(committed, ARRIVED)
    made.table.abort(aborted, "the client left", is_confirmed=False)
    made.clock.advance(LEASE_S)
    made.table.sweep()
    for lease_id, words in (
        (expired.lease_id, "expired: nothing was heard of it for 10 s"),
        (aborted.lease_id, "freed: aborted, the client left"),
        (committed.lease_id, "committed"),
        (0, "not known"),
    ):
        with pytest.raises(LeaseGone, match=words):
            made.table.open_lease(lease_id)
    assert made.table.arrived(committed.lease_id) == ARRIVED
    assert made.table.arrived(aborted.lease_id) is None


def test_integrity_check_finds_a_block_that_was_given_away() -> None:
    made = Setup()
    lease = made.grant(2)
    made.blocks.release(lease.block_ids)
    with pytest.raises(AssertionError, match="leased and free"):
        made.table.check_integrity()


def test_ids_are_not_to_be_guessed() -> None:
    made = Setup()
    ids = [made.grant(1, f"req-{i}").lease_id for i in range(NUM_BLOCKS)]
    assert len(set(ids)) == NUM_BLOCKS
    assert all(abs(a - b) > 2**20 for a, b in pairwise(ids))
