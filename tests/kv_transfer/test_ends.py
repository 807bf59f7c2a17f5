"""However a transfer ends, on either side, both sides are clean after it."""

from __future__ import annotations

import asyncio

import pytest
import torch

from core.clock import ManualClock
from core.ids import host_id
from kv_transfer import sender as sender_module
from kv_transfer.errors import TransferError
from kv_transfer.layout import PayloadKind
from kv_transfer.leases import LeaseState
from kv_transfer.outgoing import OutgoingState
from kv_transfer.pool import Pool
from kv_transfer.segment import SHM_DIR
from kv_transfer.sender import PeerAddress
from tests.kv_transfer.loopback import EACH, KEY, MakeSender, Receive, until

ALL = pytest.mark.parametrize("transport", EACH)


@ALL
@pytest.mark.parametrize("num_pushed", [0, 3, 6])
async def test_sender_aborts(
    transport: str, num_pushed: int, receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    sender = sender_with(transport)
    outgoing = await sender.open(peer.address, KEY, PayloadKind.KV, 0, 20, source)
    outgoing.push(0, 20, range(num_pushed), range(4)) if num_pushed else None
    await outgoing.abort("cancelled")
    await outgoing.abort("again")
    outgoing.push(0, 20, range(6), range(4))
    with pytest.raises(TransferError, match="ended already"):
        await outgoing.commit(20)
    peer.assert_nothing_is_held()
    assert peer.host.kv == []
    assert sender.stats.of("receiver", transport).aborted == 1


@ALL
async def test_incomplete_transfers_are_not_committed(
    transport: str, receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    sender = sender_with(transport)
    outgoing = await sender.open(peer.address, KEY, PayloadKind.KV, 0, 20, source)
    outgoing.push(0, 20, range(5), range(4))
    with pytest.raises(TransferError, match="1 planes lack tokens, plane 5 has 0 of 20"):
        await outgoing.commit(20)
    peer.assert_nothing_is_held()
    assert sender.stats.of("receiver", transport).failures == {"INCOMPLETE": 1}


@ALL
async def test_receiver_ends_the_request_mid_transfer(
    transport: str, receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    outgoing = await sender_with(transport).open(peer.address, KEY, PayloadKind.KV, 0, 20, source)
    outgoing.push(0, 20, range(2), range(4))
    await asyncio.sleep(0.01)
    peer.receiver.release_request(KEY, "cancelled by the client")
    assert peer.num_open == 0
    assert peer.receiver.leases.num_quarantined_blocks == (5 if transport in {"shm", "nixl"} else 0)
    outgoing.push(0, 20, range(2, 6), range(4))
    with pytest.raises(TransferError, match="cancelled by the client"):
        await outgoing.commit(20)
    peer.assert_nothing_is_held()


@ALL
async def test_receiver_refuses_at_the_end(
    transport: str, receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    peer.host.refuses = True
    outgoing = await sender_with(transport).open(peer.address, KEY, PayloadKind.KV, 0, 4, source)
    outgoing.push(0, 4, range(6), [2])
    with pytest.raises(TransferError, match="the request is gone") as caught:
        await outgoing.commit(4)
    assert caught.value.cause == "NOT_FOUND"
    assert outgoing.state is OutgoingState.ENDED
    peer.assert_nothing_is_held()


@ALL
async def test_commit_is_cancelled(
    transport: str, receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    sender = sender_with(transport)
    for ticks in range(0, 16):
        outgoing = await sender.open(peer.address, KEY, PayloadKind.KV, 0, 20, source)
        outgoing.push(0, 20, range(6), range(4))
        commit = asyncio.create_task(outgoing.commit(20))
        for _ in range(ticks):
            await asyncio.sleep(0.0002)
        commit.cancel()
        await asyncio.gather(commit, return_exceptions=True)
        await outgoing.abort("cancelled before it began to commit")
        for _, blocks, _, _ in peer.host.kv:
            peer.kv.blocks.release(blocks)
        peer.host.kv.clear()
        await until(lambda: not list(peer.receiver.leases))
        peer.assert_nothing_is_held()
    assert sender.stats.in_flight == 0


@ALL
async def test_abort_beside_a_commit(
    transport: str, receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    sender = sender_with(transport)
    outgoing = await sender.open(peer.address, KEY, PayloadKind.KV, 0, 20, source)
    outgoing.push(0, 20, range(6), range(4))
    commit = asyncio.create_task(outgoing.commit(20))
    await asyncio.sleep(0)
    await outgoing.abort("cancelled")
    with pytest.raises(TransferError):
        await commit
    for _, blocks, _, _ in peer.host.kv:
        peer.kv.blocks.release(blocks)
    peer.assert_nothing_is_held()
    assert sender.stats.in_flight == 0


@ALL
async def test_receiver_is_gone(
    transport: str, receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    sender = sender_with(transport)
    outgoing = await sender.open(peer.address, KEY, PayloadKind.KV, 0, 20, source)
    await peer.leave()
    outgoing.push(0, 20, range(6), range(4))
    with pytest.raises(TransferError) as caught:
        await outgoing.commit(20)
    assert caught.value.cause in {"UNAVAILABLE", "CANCELLED", "PEER_LOST", "NIXL"}
    with pytest.raises(TransferError, match="UNAVAILABLE"):
        await sender.open(peer.address, KEY, PayloadKind.KV, 0, 20, source)
    sender.forget("receiver")
    assert sender.stats.in_flight == 0


@ALL
async def test_a_peer_that_came_back_has_a_new_life(
    transport: str, receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    old = await receive(instance_id="old")
    sender = sender_with(transport)
    outgoing = await sender.open(old.address, KEY, PayloadKind.KV, 0, 20, source)
    await old.leave()
    port = int(old.address.endpoint.rpartition(":")[2])
    new = await receive(instance_id="new", epoch=8, port=port)
    outgoing.push(0, 20, range(6), range(4))
    with pytest.raises(TransferError):
        await outgoing.commit(20)
    with pytest.raises(TransferError, match="receiver_epoch: 7 is not this life"):
        await sender_with(transport).open(old.address, KEY, PayloadKind.KV, 0, 20, source)
    again = await sender.open(new.address, KEY, PayloadKind.KV, 0, 20, source)
    again.push(0, 20, range(6), range(4))
    await again.commit(20)
    assert len(new.host.kv) == 1
    assert torch.equal(new.kv.read_tokens(new.host.kv[0][1], 20), source.read_tokens(range(4), 20))


async def test_memory_that_cannot_be_mapped_falls_through_to_grpc(
    receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    assert peer.kv.segment is not None
    moved = peer.kv.segment.path.rename(SHM_DIR / f"{peer.kv.segment.path.name}.moved")
    sender = sender_with("shm", "grpc")
    outgoing = await sender.open(peer.address, KEY, PayloadKind.KV, 0, 4, source)
    assert outgoing.transport == "grpc"
    await outgoing.abort("done")
    await until(lambda: not list(peer.receiver.leases))
    peer.assert_nothing_is_held()
    with pytest.raises(TransferError, match="No such file"):
        await sender_with("shm").open(peer.address, KEY, PayloadKind.KV, 0, 4, source)
    await until(lambda: not list(peer.receiver.leases))
    peer.assert_nothing_is_held()
    moved.unlink()


@pytest.mark.parametrize("reason", ["plain pool", "another host"])
async def test_shared_memory_only_where_there_is_some(
    reason: str, receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive(is_shared=reason != "plain pool")
    here = host_id() if reason == "plain pool" else "elsewhere"
    sender = sender_with("shm", "grpc", host_id=here)
    outgoing = await sender.open(peer.address, KEY, PayloadKind.KV, 0, 4, source)
    assert outgoing.transport == "grpc"
    await outgoing.abort("done")


@ALL
async def test_heartbeats_keep_a_long_lease(
    transport: str,
    receive: Receive,
    sender_with: MakeSender,
    source: Pool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sender_module, "HEARTBEAT_INTERVAL_S", 0.01)
    clock = ManualClock()
    peer = await receive(clock=clock, lease_s=30.0)
    outgoing = await sender_with(transport, clock=clock).open(peer.address, KEY, PayloadKind.KV, 0, 4, source)
    [lease] = peer.receiver.leases
    for _ in range(4):
        clock.advance(20.0)
        await until(lambda: lease.expires_at_s == clock.now_s() + 30.0)
        peer.receiver.leases.sweep()
    assert lease.state is LeaseState.WRITING
    outgoing.push(0, 4, range(6), [1])
    await outgoing.commit(4)


async def test_a_sender_that_slept_too_long_writes_nothing(
    receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    clock = ManualClock()
    peer = await receive(lease_s=30.0)
    outgoing = await sender_with("shm", clock=clock).open(peer.address, KEY, PayloadKind.KV, 0, 4, source)
    clock.advance(30.0)
    outgoing.push(0, 4, range(6), [1])
    with pytest.raises(TransferError, match="the lease ran out") as caught:
        await outgoing.commit(4)
    assert caught.value.cause == "LEASE_OVER"
    assert not peer.kv.tensor.any()
    peer.assert_nothing_is_held()


async def test_an_expired_lease_is_quarantined_until_the_sender_is_heard(
    receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    clock = ManualClock()
    peer = await receive(clock=clock, lease_s=30.0)
    outgoing = await sender_with("shm").open(peer.address, KEY, PayloadKind.KV, 0, 4, source)
    clock.advance(30.0)
    peer.receiver.leases.sweep()
    assert peer.kv.blocks.num_free == 15
    outgoing.push(0, 4, range(6), [1])
    with pytest.raises(TransferError, match="expired"):
        await outgoing.commit(4)
    peer.assert_nothing_is_held()


async def test_nobody_listens(sender_with: MakeSender, source: Pool) -> None:
    nobody = PeerAddress("nobody", "127.0.0.1:1", host_id(), 1)
    with pytest.raises(TransferError, match="UNAVAILABLE"):
        await sender_with().open(nobody, KEY, PayloadKind.KV, 0, 4, source)


async def test_closing_the_sender_aborts_what_is_open(
    receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    sender = sender_with()
    outgoing = await sender.open(peer.address, KEY, PayloadKind.KV, 0, 4, source)
    await sender.close()
    assert outgoing.state is OutgoingState.ENDED
    peer.assert_nothing_is_held()
