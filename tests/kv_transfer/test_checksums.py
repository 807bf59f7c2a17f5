"""Bytes that arrive changed fail their transfer, never the process."""

from __future__ import annotations

import asyncio
import threading
import zlib
from collections.abc import Iterable

import grpc
import pytest
import torch

from kv_transfer.arrivals import Arrivals
from kv_transfer.checksums import block_checksums
from kv_transfer.descriptors import Copy
from kv_transfer.errors import TransferError
from kv_transfer.layout import PayloadKind
from kv_transfer.leases import Lease
from kv_transfer.native.copies import EndCopies
from kv_transfer.pool import Pool
from kv_transfer.runs import BlockTable
from kv_transfer.sender import Sender
from kv_transfer.source import TensorSource
from kv_transfer.transports import shm
from tests.kv_transfer.loopback import KEY, MakeSender, Receive, Receiving, until
from tests.kv_transfer.raw import Raw, refused

BOTH = pytest.mark.parametrize("transport", ["shm", "grpc"])
BLOCKS = [3, 9, 10, 0]  # 20 tokens of the source, 5 a block


@pytest.fixture
def flip_a_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of whatever is copied or received, the first."""
    run, write = EndCopies.run, Pool.write_bytes

    def bad_run(self: EndCopies, planes: range, moves: Iterable[Copy], *, to_plane: int | None = None) -> int:
        moves = list(moves)
        size_bytes = run(self, planes, moves, to_plane=to_plane)
        self._there.view(self._target, planes, moves[0].target)[0, 0, 0, 0, 0] ^= 1
        return size_bytes

    def bad_write(
        self: Pool, planes: range, blocks: list[int], first_token: int, data: bytes, heads: range
    ) -> None:
        write(self, planes, blocks, first_token, bytes([data[0] ^ 1]) + data[1:], heads)

    monkeypatch.setattr(shm, "EndCopies", type("BadCopies", (EndCopies,), {"run": bad_run}))
    monkeypatch.setattr(Pool, "write_bytes", bad_write)


async def send(sender: Sender, peer: Receiving, source: Pool, num_tokens: int = 18) -> None:
    outgoing = await sender.open(peer.address, KEY, PayloadKind.KV, 0, 20, source)
    outgoing.push(0, 20, range(6), BLOCKS)
    await outgoing.commit(num_tokens)


def test_one_per_block_of_the_receiver_in_canonical_order(source: Pool) -> None:
    found = block_checksums(TensorSource.of_pool(source), range(2), BlockTable(BLOCKS, 5), 18, 4)
    planes = torch.stack([source.read_tokens(BLOCKS, 18, plane=plane) for plane in range(6)])
    spans = [(0, 4), (4, 8), (8, 12), (12, 16), (16, 18)]
    assert found == tuple(zlib.crc32(planes[:, a:b].numpy().tobytes()) for a, b in spans)


@BOTH
async def test_what_arrives_whole_is_committed(
    transport: str, receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive(checksums=True)
    sender = sender_with(transport)
    await send(sender, peer, source)
    [(_, blocks, _, _)] = peer.host.kv
    assert torch.equal(peer.kv.read_tokens(blocks, 18), source.read_tokens(BLOCKS, 18))
    embedding = torch.randn(35, 24).to(torch.bfloat16)
    await sender.send_embedding(peer.address, KEY, 2, embedding)
    assert torch.equal(peer.embeddings.read_tokens(peer.host.embeddings[0][2], 35), embedding)


@BOTH
@pytest.mark.usefixtures("flip_a_byte")
async def test_a_flipped_byte_fails_the_transfer(
    transport: str, receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive(checksums=True)
    sender = sender_with(transport)
    with pytest.raises(TransferError, match="blocks are not as they were sent") as caught:
        await send(sender, peer, source)
    assert caught.value.cause == "CHECKSUM"
    assert sender.stats.of("receiver", transport).failures == {"CHECKSUM": 1}
    assert peer.host.kv == []
    peer.assert_nothing_is_held()


@BOTH
async def test_the_next_transfer_is_not_harmed(
    transport: str, receive: Receive, sender_with: MakeSender, source: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = await receive(checksums=True)
    sender = sender_with(transport)
    arrivals = peer.receiver._arrivals
    right = arrivals._checksums
    monkeypatch.setattr(arrivals, "_checksums", lambda *_: (0,) * 5)
    with pytest.raises(TransferError, match="DATA_LOSS: .* 5 of 5 blocks"):
        await send(sender, peer, source)
    monkeypatch.setattr(arrivals, "_checksums", right)
    await send(sender, peer, source)
    assert len(peer.host.kv) == 1


@BOTH
@pytest.mark.usefixtures("flip_a_byte")
async def test_they_are_off_by_default(
    transport: str, receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    await send(sender_with(transport), peer, source)
    [(_, blocks, _, _)] = peer.host.kv
    assert not torch.equal(peer.kv.read_tokens(blocks, 18), source.read_tokens(BLOCKS, 18))


async def test_a_commit_without_them_is_refused(receive: Receive) -> None:
    peer = await receive(checksums=True)
    async with Raw(peer) as raw:
        granted = await raw.open(transports=["shm"], sender_host_id=peer.address.host_id)
        assert granted.wants_checksums
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "block_checksums: 1 came for 2 blocks"):
            await raw.commit(granted.lease_id, 8, block_checksums=[1])
    peer.assert_nothing_is_held()


async def test_too_few_written_bytes_are_refused(receive: Receive) -> None:
    peer = await receive()
    async with Raw(peer) as raw:
        granted = await raw.open(transports=["shm"], sender_host_id=peer.address.host_id)
        assert not granted.wants_checksums
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "written_bytes: 1535, but 8 tokens have 1536"):
            await raw.commit(granted.lease_id, 8, written_bytes=1535)
    peer.assert_nothing_is_held()


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Comparing waits for this."""
    go_on, right = threading.Event(), Arrivals._checksums

    def wait(self: Arrivals, lease: Lease, num_tokens: int) -> tuple[int, ...]:
        assert go_on.wait(60)
        return right(self, lease, num_tokens)

    monkeypatch.setattr(Arrivals, "_checksums", wait)
    return go_on


async def test_a_request_that_ends_while_they_are_compared(
    receive: Receive, sender_with: MakeSender, source: Pool, slowly: threading.Event
) -> None:
    peer = await receive(checksums=True)
    sending = asyncio.create_task(send(sender_with("shm"), peer, source))
    await until(lambda: peer.receiver._arrivals.num_comparing)
    peer.receiver.release_request(KEY, "cancelled by the client")
    slowly.set()
    with pytest.raises(TransferError, match="cancelled by the client"):
        await sending
    assert peer.host.kv == []
    peer.assert_nothing_is_held()


async def test_a_commit_that_is_repeated_while_they_are_compared(
    receive: Receive,
    sender_with: MakeSender,
    source: Pool,
    slowly: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kv_transfer.transports import shm

    monkeypatch.setattr(shm, "ANSWER_TIMEOUT_S", 0.01)
    peer = await receive(checksums=True)
    sending = asyncio.create_task(send(sender_with("shm"), peer, source))
    await asyncio.sleep(0.05)
    slowly.set()
    await sending
    assert len(peer.host.kv) == 1


async def test_a_receiver_that_closes_while_they_are_compared(
    receive: Receive, sender_with: MakeSender, source: Pool, slowly: threading.Event
) -> None:
    peer = await receive(checksums=True)
    sending = asyncio.create_task(send(sender_with("shm"), peer, source))
    await until(lambda: peer.receiver._arrivals.num_comparing)
    leaving = asyncio.create_task(peer.leave())
    await asyncio.sleep(0.01)
    slowly.set()
    await leaving
    with pytest.raises(TransferError):
        await sending
    assert peer.host.kv == []
