"""An abort by either end at every stage of a transfer's life: both ends are whole after it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

import pytest

from core.clock import ManualClock
from kv_transfer.arrivals import Arrivals
from kv_transfer.errors import TransferError
from kv_transfer.layout import PayloadKind
from kv_transfer.leases import Lease, LeaseState
from kv_transfer.outgoing import Outgoing, OutgoingState
from kv_transfer.pool import Pool
from kv_transfer.sender import Sender
from kv_transfer.transports import shm
from tests.kv_transfer.faults.survivors import BLOCKS, planes_written, send
from tests.kv_transfer.loopback import KEY, MakeSender, Receive, Receiving, until


@dataclass
class Case:
    """One transfer, as far as it got."""

    peer: Receiving
    sender: Sender
    source: Pool
    clock: ManualClock
    may_compare: threading.Event
    opening: asyncio.Task[Outgoing] | None = None
    outgoing: Outgoing | None = None
    committing: asyncio.Task[None] | None = None
    held: list[int] = field(default_factory=list)
    lease: Lease | None = None

    async def ask(self, source: Pool | None = None) -> None:
        opening = self.sender.open(self.peer.address, KEY, PayloadKind.KV, 0, 20, source or self.source)
        self.opening = asyncio.create_task(opening)

    async def open(self, source: Pool | None = None) -> Outgoing:
        await self.ask(source)
        assert self.opening is not None
        self.outgoing = await self.opening
        [self.lease] = self.peer.receiver.leases
        return self.outgoing

    async def push(self, num_planes: int) -> Outgoing:
        outgoing = await self.open()
        outgoing.push(0, 20, range(num_planes), BLOCKS)
        assert self.lease is not None
        written = list(range(num_planes))
        await until(lambda: self.lease and planes_written(self.peer.kv, self.lease) == written)
        return outgoing


async def unknown_here(case: Case) -> None:
    case.peer.host.known.clear()
    await case.ask()
    await until(lambda: case.peer.host.expected)


async def without_room(case: Case) -> None:
    case.held = case.peer.kv.blocks.allocate(16)
    await case.ask()
    await until(lambda: case.peer.receiver.rooms[PayloadKind.KV].num_waiting)


async def granted(case: Case) -> None:
    await case.open()


async def half_written(case: Case) -> None:
    await case.push(3)


async def all_written(case: Case) -> None:
    await case.push(6)


async def being_confirmed(case: Case) -> None:
    """The receiver compares checksums."""
    case.may_compare.clear()
    outgoing = await case.push(6)
    case.committing = asyncio.create_task(outgoing.commit(20))
    await until(lambda: case.peer.receiver._arrivals.num_comparing)


async def in_part(case: Case) -> None:
    """One of two heads is there."""
    layout = replace(case.source.layout, token_bytes=16, num_heads=1)
    outgoing = await case.open(Pool(layout, 12))
    outgoing.push(0, 20, range(6), BLOCKS)
    await outgoing.commit(20)


async def committed(case: Case) -> None:
    outgoing = await case.push(6)
    await outgoing.commit(20)


async def ended_by_the_receiver(case: Case) -> None:
    await case.push(3)
    case.peer.receiver.release_request(KEY, "cancelled by the client")


async def expired(case: Case) -> None:
    await case.push(3)
    case.clock.advance(30.0)
    case.peer.receiver.leases.sweep()


_S = LeaseState
STAGES: Mapping[Callable[[Case], Awaitable[None]], tuple[LeaseState | None, ...]] = {
    unknown_here: (None,),
    without_room: (None,),
    granted: (_S.GRANTED,),
    half_written: (_S.GRANTED, _S.WRITING),  # of what passes it by, the receiver hears when it is committed
    all_written: (_S.GRANTED, _S.WRITING),
    being_confirmed: (_S.GRANTED, _S.WRITING),
    in_part: (_S.ARRIVED,),
    committed: (_S.COMMITTED,),
    ended_by_the_receiver: (_S.ABORTED, _S.FREED),  # freed at once where nobody writes past the receiver
    expired: (_S.EXPIRED, _S.FREED),
}


async def by_the_sender(case: Case) -> None:
    if case.committing is not None:
        case.committing.cancel()
    if case.outgoing is not None:
        await case.outgoing.abort("cancelled")
    elif case.opening is not None:
        case.opening.cancel()
    if case.lease is not None and case.lease.state is LeaseState.ARRIVED:  # confirmed: it waits for its time
        case.clock.advance(30.0)
        case.peer.receiver.leases.sweep()


async def by_the_receiver(case: Case) -> None:
    case.peer.receiver.release_request(KEY, "cancelled by the client")


@pytest.fixture
def may_compare(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Checksums are compared only while this is set."""
    may, right = threading.Event(), Arrivals._checksums
    may.set()

    def wait(self: Arrivals, lease: Lease, num_tokens: int) -> tuple[int, ...]:
        assert may.wait(60)
        return right(self, lease, num_tokens)

    monkeypatch.setattr(Arrivals, "_checksums", wait)
    return may


@pytest.fixture(params=["shm", "grpc"])
async def case(
    request: pytest.FixtureRequest,
    receive: Receive,
    sender_with: MakeSender,
    source: Pool,
    may_compare: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> Case:
    monkeypatch.setattr(shm, "LITTLE_BYTES", 0)  # what is pushed leaves at once
    clock = ManualClock()
    peer = await receive(clock=clock, lease_s=30.0, checksums=True)
    return Case(peer, sender_with(request.param), source, clock, may_compare)


@pytest.mark.parametrize("abort", [by_the_sender, by_the_receiver])
@pytest.mark.parametrize("reach", STAGES)
async def test_an_abort(
    reach: Callable[[Case], Awaitable[None]], abort: Callable[[Case], Awaitable[None]], case: Case
) -> None:
    await reach(case)
    assert (case.lease.state if case.lease else None) in STAGES[reach]
    await abort(case)
    case.may_compare.set()
    if case.committing is not None:
        with pytest.raises((TransferError, asyncio.CancelledError)):
            await case.committing
    if case.outgoing is None and case.opening is not None:
        with pytest.raises((TransferError, asyncio.CancelledError)):
            await case.opening
    if case.outgoing is not None and case.outgoing.state is OutgoingState.OPEN:
        case.outgoing.push(0, 20, range(3, 6), BLOCKS)
        with pytest.raises(TransferError):
            await case.outgoing.commit(20)
    await assert_both_are_whole(case, is_committed=reach is committed)
    case.peer.host.known.add(KEY)
    await send(case.sender, case.peer.address, case.source, KEY)
    await assert_both_are_whole(case, is_committed=True)


async def assert_both_are_whole(case: Case, *, is_committed: bool) -> None:
    """What was handed over is the host's, and given back here."""
    peer, outputs = case.peer, case.peer.host.kv
    assert len(outputs) == is_committed
    for _, blocks, num_tokens, _ in outputs:
        assert peer.kv.read_tokens(blocks, num_tokens).equal(case.source.read_tokens(BLOCKS, num_tokens))
        peer.kv.blocks.release(blocks)
    outputs.clear()
    peer.kv.blocks.release(case.held)
    case.held = []
    await until(lambda: not list(peer.receiver.leases))
    await until(lambda: not (peer.receiver._opening or case.sender._background))
    peer.assert_nothing_is_held()
    case.sender.check_idle()


def test_all_states_of_a_lease_are_among_the_stages() -> None:
    assert {state for states in STAGES.values() for state in states if state} == set(LeaseState)
