"""Commits over shared memory take the socket, say why they are refused, and fall back to gRPC."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable, Iterator
from ctypes import CDLL
from pathlib import Path

import pytest
import torch

from core.clock import ManualClock
from kv_transfer import local_socket
from kv_transfer.commits import Arrived, CommitRecord
from kv_transfer.descriptors import Copy
from kv_transfer.errors import TransferError
from kv_transfer.layout import PayloadKind
from kv_transfer.leases import Lease
from kv_transfer.native.copies import STREAM_BYTES, EndCopies
from kv_transfer.pool import Pool, kv_layout
from kv_transfer.sender import Outgoing, Sender
from kv_transfer.servicer import TransferServicer
from kv_transfer.transports import shm
from kv_transfer.transports.commit_socket import CommitConnection, CommitListener
from tests.kv_transfer.loopback import FINGERPRINT, KEY, MakeSender, Receive, Receiving, segments, until

TOKEN_BYTES = 6 * 32  # of one token in all planes


@pytest.fixture
def grpc_commits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Leases that were committed over gRPC; ask for it before `receive`."""
    leases: list[int] = []
    commit = TransferServicer.Commit

    async def spy(self: TransferServicer, request: object, context: object) -> object:
        leases.append(request.lease_id)
        return await commit(self, request, context)

    monkeypatch.setattr(TransferServicer, "Commit", spy)
    return leases


async def pushed(sender: Sender, peer: Receiving, source: Pool, num_tokens: int = 20) -> Outgoing:
    outgoing = await sender.open(peer.address, KEY, PayloadKind.KV, 0, num_tokens, source)
    outgoing.push(0, num_tokens, range(source.layout.num_planes), range(source.blocks_for(num_tokens)))
    return outgoing


def assert_arrived(peer: Receiving, source: Pool, num_tokens: int = 20) -> None:
    [(_, blocks, count, _)] = peer.host.kv
    assert count == num_tokens
    for plane in range(source.layout.num_planes):
        there = peer.kv.read_tokens(blocks, num_tokens, plane=plane)
        assert torch.equal(there, source.read_tokens(range(source.num_blocks), num_tokens, plane=plane))


def spy_on_copies(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Number of copies and bytes of each native call."""
    calls: list[tuple[int, int]] = []
    run = EndCopies._run

    def spy(self: EndCopies, library: CDLL, planes: range, to_planes: range, moves: Iterable[Copy]) -> int:
        moves = list(moves)
        size_bytes = run(self, library, planes, to_planes, moves)
        calls.append((len(moves), size_bytes))
        return size_bytes

    monkeypatch.setattr(EndCopies, "_run", spy)
    return calls


def listener(peer: Receiving) -> CommitListener:
    found: CommitListener = peer.receiver._acceptors["shm"]._listener
    return found


def socket_path() -> Path:
    [path] = (path for path in segments() if path.is_socket())
    return path


async def test_a_small_payload_takes_neither_thread_nor_grpc(
    grpc_commits: list[int],
    receive: Receive,
    sender_with: MakeSender,
    source: Pool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slices: list[object] = []
    monkeypatch.setattr(shm.ShmWriter, "run_slice", slices.append)
    peer = await receive()
    await (await pushed(sender_with("shm"), peer, source)).commit(20)
    assert_arrived(peer, source)
    assert (grpc_commits, slices) == ([], [])


async def test_a_large_payload_is_committed_by_the_thread_that_copied_it(
    grpc_commits: list[int], receive: Receive, sender_with: MakeSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = kv_layout(FINGERPRINT, torch.float32, num_layers=1, num_heads=4, head_dim=25_000, block_tokens=2)
    peer, source = await receive(kv=layout, kv_blocks=8), Pool(layout, 8)
    source.tensor.copy_(torch.randn(source.tensor.shape))
    monkeypatch.setattr(shm.ShmWriter, "_is_little_left", lambda _: False)
    copied = spy_on_copies(monkeypatch)
    await (await pushed(sender_with("shm"), peer, source, 15)).commit(15)
    assert_arrived(peer, source, 15)
    assert (grpc_commits, copied) == ([], [(1, 2 * 15 * 400_000)])
    assert copied[0][1] > STREAM_BYTES


async def test_blocks_that_lie_equally_far_apart_are_one_copy(
    receive: Receive, sender_with: MakeSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = kv_layout(FINGERPRINT, torch.float32, num_layers=1, num_heads=4, head_dim=25_000, block_tokens=2)
    peer, source = await receive(kv=layout, kv_blocks=8), Pool(layout, 8)
    source.tensor.copy_(torch.randn(source.tensor.shape))
    copied = spy_on_copies(monkeypatch)
    outgoing = await sender_with("shm").open(peer.address, KEY, PayloadKind.KV, 0, 8, source)
    outgoing.push(0, 8, range(2), [1, 3, 5, 7])
    await outgoing.commit(8)
    [(_, blocks, _, _)] = peer.host.kv
    for plane in range(2):
        there = peer.kv.read_tokens(blocks, 8, plane=plane)
        assert torch.equal(there, source.read_tokens([1, 3, 5, 7], 8, plane=plane))
    assert copied == [(1, 2 * 8 * 400_000)]


async def test_the_socket_is_the_users_own_and_goes_with_the_receiver(
    receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    outgoing = await pushed(sender_with("shm"), peer, source)
    assert socket_path().stat().st_mode & 0o777 == 0o600
    assert socket_path().name.rpartition("-commit-")[0] == peer.kv.segment.path.name.rpartition("-kv-")[0]
    await outgoing.abort("done")
    await peer.leave()
    assert not [path for path in segments() if path.is_socket()]


async def test_no_socket_to_connect_to(
    grpc_commits: list[int], receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    await (await pushed(sender_with("shm"), peer, source)).abort("made the socket")
    socket_path().unlink()
    outgoing = await pushed(sender_with("shm"), peer, source)
    await outgoing.commit(20)
    assert (outgoing.transport, grpc_commits) == ("shm", [outgoing.lease_id])
    assert_arrived(peer, source)


async def test_no_socket_to_listen_on(
    grpc_commits: list[int],
    receive: Receive,
    sender_with: MakeSender,
    source: Pool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shm, "_SOCKET_KIND", "commit" * 20)  # too long for a socket's address
    peer = await receive()
    outgoing = await pushed(sender_with("shm"), peer, source)
    await outgoing.commit(20)
    assert (outgoing.transport, grpc_commits) == ("shm", [outgoing.lease_id])


async def test_the_socket_goes_while_a_transfer_is_open(
    grpc_commits: list[int], receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    outgoing = await pushed(sender_with("shm"), peer, source)
    listener(peer).close()
    await outgoing.commit(20)
    assert grpc_commits == [outgoing.lease_id]
    assert_arrived(peer, source)


async def test_an_answer_that_does_not_come_is_asked_for_over_grpc(
    grpc_commits: list[int],
    receive: Receive,
    sender_with: MakeSender,
    source: Pool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shm, "ANSWER_TIMEOUT_S", 0.01)
    monkeypatch.setattr(CommitListener, "_answer", lambda *_: None)
    peer = await receive()
    outgoing = await pushed(sender_with("shm"), peer, source)
    await outgoing.commit(20)
    assert grpc_commits == [outgoing.lease_id]
    assert_arrived(peer, source)  # once


async def test_a_record_that_is_too_long_goes_over_grpc(
    grpc_commits: list[int], receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    outgoing = await pushed(sender_with("shm"), peer, source)
    await outgoing.commit(20, range(40_000))
    assert grpc_commits == [outgoing.lease_id]
    assert peer.host.kv[0][3] == tuple(range(40_000))


async def test_a_refusal_names_its_cause(
    grpc_commits: list[int], receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    peer.host.refuses = True
    with pytest.raises(TransferError, match="NOT_FOUND: the request is gone") as caught:
        await (await pushed(sender_with("shm"), peer, source)).commit(20)
    assert (caught.value.cause, grpc_commits) == ("NOT_FOUND", [])
    peer.assert_nothing_is_held()


async def test_an_expired_lease_is_refused(
    grpc_commits: list[int], receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    clock = ManualClock()
    peer = await receive(clock=clock, lease_s=30.0)
    outgoing = await pushed(sender_with("shm"), peer, source)
    clock.advance(30.0)
    peer.receiver.leases.sweep()
    with pytest.raises(TransferError, match="expired") as caught:
        await outgoing.commit(20)
    assert (caught.value.cause, grpc_commits) == ("FAILED_PRECONDITION", [])
    peer.assert_nothing_is_held()


async def test_a_host_that_fails_is_an_internal_error(
    receive: Receive, sender_with: MakeSender, source: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    peer = await receive()
    peer.host.kv = None  # type: ignore[assignment]
    with pytest.raises(TransferError, match="INTERNAL") as caught:
        await (await pushed(sender_with("shm"), peer, source)).commit(20)
    assert caught.value.cause == "INTERNAL"
    assert "a commit failed" in caplog.text
    peer.assert_nothing_is_held()


@pytest.mark.parametrize(
    ("change", "cause", "words"),
    [
        ({"written_bytes": 20 * TOKEN_BYTES - 1}, "INVALID_ARGUMENT", "written_bytes: 3839, but 20 tokens"),
        ({"num_tokens": 21}, "INVALID_ARGUMENT", "num_tokens: 21 is not within 1 to 20"),
        ({"lease_id": 5}, "FAILED_PRECONDITION", "lease 5 is not known"),
    ],
)
async def test_records_that_are_refused(
    change: dict[str, int],
    cause: str,
    words: str,
    receive: Receive,
    sender_with: MakeSender,
    source: Pool,
) -> None:
    peer = await receive()
    outgoing = await pushed(sender_with("shm"), peer, source)
    good = {"lease_id": outgoing.lease_id, "num_tokens": 20, "written_bytes": 20 * TOKEN_BYTES}
    connection = CommitConnection(socket_path())
    record = CommitRecord(**(good | change))
    answer = connection.expect(record.lease_id)
    assert connection.send(record)
    with pytest.raises(TransferError, match=words) as caught:
        await answer
    assert caught.value.cause == cause
    assert peer.host.kv == []
    connection.close()
    await outgoing.abort("done")
    peer.assert_nothing_is_held()


async def test_a_repeated_record_is_answered_as_the_first(
    receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    outgoing = await pushed(sender_with("shm"), peer, source)
    await outgoing.commit(20)
    connection = CommitConnection(socket_path())
    answer = connection.expect(outgoing.lease_id)
    connection.send(CommitRecord(lease_id=outgoing.lease_id, num_tokens=20, written_bytes=0))
    assert await answer == Arrived(num_tokens=20, num_planes=6, num_blocks=5)
    assert len(peer.host.kv) == 1
    connection.close()


async def test_who_sends_no_record_is_dropped_and_others_are_heard(
    receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    outgoing = await pushed(sender_with("shm"), peer, source)
    stranger = local_socket.connect(socket_path())
    stranger.send(b"\xff" * 100)
    await until(lambda: len(listener(peer)._connections) == 1)
    await outgoing.commit(20)
    assert_arrived(peer, source)
    stranger.close()


async def test_a_receiver_that_found_less_fails_the_transfer(
    receive: Receive, sender_with: MakeSender, source: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = await receive()
    take = peer.receiver._arrivals._take

    def lossy(lease: Lease, record: CommitRecord) -> Arrived:
        take(lease, record)
        return Arrived(record.num_tokens, lease.num_planes - 1, 5)

    monkeypatch.setattr(peer.receiver._arrivals, "_take", lossy)
    with pytest.raises(TransferError, match="the receiver found .*num_planes=5") as caught:
        await (await pushed(sender_with("shm"), peer, source)).commit(20)
    assert caught.value.cause == "INCOMPLETE"


async def test_many_transfers_commit_at_once(
    grpc_commits: list[int], receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    sender = sender_with("shm")
    keys = [(f"req-{i}", 0) for i in range(16)]
    peer.host.known.update(keys)
    for round_ in range(5):
        peer.host.known.update((f"req-{i}", round_) for i in range(16))

        async def send(index: int, attempt: int = round_) -> None:
            key = f"req-{index}", attempt
            outgoing = await sender.open(peer.address, key, PayloadKind.KV, 0, 4, source)
            await asyncio.to_thread(outgoing.push, 0, 4, range(6), [index % 12])
            await outgoing.commit(4, (index,))

        await asyncio.gather(*map(send, range(16)))
        for _, blocks, _, outputs in peer.host.kv:
            assert torch.equal(peer.kv.read_tokens(blocks, 4), source.read_tokens([outputs[0] % 12], 4))
            peer.kv.blocks.release(blocks)
        assert len(peer.host.kv) == 16
        peer.host.kv.clear()
    assert grpc_commits == []
    peer.assert_nothing_is_held()


async def test_the_memory_of_a_peer_that_ended_is_let_go(
    receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    """At once, whoever still holds the transfer or its error."""
    peer, sender = await receive(), sender_with("shm")
    outgoing = await pushed(sender, peer, source)
    transport = sender._transports["shm"]
    assert isinstance(transport, shm.ShmTransport)
    [memory] = [weakref.ref(pool.memory) for pool in transport._attached.values()]
    await peer.leave()
    await until(lambda: not transport._attached)
    with pytest.raises(TransferError) as caught:
        await outgoing.commit(20)
    assert memory() is None, caught.value
