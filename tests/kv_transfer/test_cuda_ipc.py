"""Copies between GPUs of one host: what is decided without one, and what arrives where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from core.clock import ManualClock
from kv_transfer.errors import TransferError
from kv_transfer.layout import MemoryOrder, PayloadKind
from kv_transfer.pool import Pool
from kv_transfer.sender import PeerAddress, Sender
from kv_transfer.source import TensorSource
from kv_transfer.transports import cuda_writer, registry
from kv_transfer.transports.cuda_ipc import CudaIpcAcceptor, CudaIpcTransport
from kv_transfer.transports.registry import Entry, usable
from tests.gpu import needs_gpu
from tests.kv_transfer.child import digest
from tests.kv_transfer.children import Start, receiving
from tests.kv_transfer.fake_cuda import FakeCuda, FakeFence
from tests.kv_transfer.loopback import (
    CLUSTER,
    KEY,
    KV,
    MakeSender,
    Receive,
    Receiving,
    until,
)
from tests.kv_transfer.test_shards import NUM_HEADS, assert_arrived, layout, shard

OTHER_BLOCKS = replace(KV, block_tokens=5)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """Both ends of the test work with this driver."""
    fake = FakeCuda()
    entry = Entry(
        lambda end, _: CudaIpcTransport(end.host_id, fake),  # type: ignore[arg-type]
        lambda end: CudaIpcAcceptor(end.host_id, fake),  # type: ignore[arg-type]
    )
    monkeypatch.setitem(registry.REGISTRY, "cuda_ipc", entry)  # type: ignore[arg-type]
    return fake


@pytest.fixture
def fences(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[FakeFence]]:
    """Given to pushes in this order."""
    given: list[FakeFence] = []
    waiting = iter(given)
    monkeypatch.setattr(TensorSource, "fence", lambda _: next(waiting))
    yield given
    assert next(waiting, None) is None


async def send(sender: Sender, peer: Receiving, source: Pool) -> str:
    outgoing = await sender.open(peer.address, KEY, PayloadKind.KV, 0, 20, source)
    outgoing.push(0, 20, range(6), [3, 9, 10, 0])
    await outgoing.commit(20)
    blocks = peer.host.kv.pop()[1]
    for plane in range(6):
        expected = source.read_tokens([3, 9, 10, 0], 20, plane=plane)
        assert torch.equal(peer.kv.read_tokens(blocks, 20, plane=plane), expected)
    peer.kv.blocks.release(blocks)
    peer.assert_nothing_is_held()
    return outgoing.transport


async def test_handles_are_taken_and_opened_once(
    cuda: FakeCuda, receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    sender = sender_with()
    assert [await send(sender, peer, source) for _ in range(2)] == ["cuda_ipc", "cuda_ipc"]
    assert (len(cuda.exported), cuda.opened, cuda.closed) == (1, [1], [])
    embedding = torch.randn(35, 24).to(torch.bfloat16)
    assert await sender.send_embedding(peer.address, KEY, 2, embedding) == "cuda_ipc"
    assert torch.equal(peer.embeddings.read_tokens(peer.host.embeddings[0][2], 35), embedding)
    assert (len(cuda.exported), cuda.opened, cuda.closed) == (2, [1, 2], [])
    sender.forget("receiver")
    assert sorted(cuda.closed) == [1, 2]


@pytest.mark.parametrize("order", MemoryOrder)
async def test_some_heads_go_into_any_order(
    order: MemoryOrder, cuda: FakeCuda, receive: Receive, sender_with: MakeSender
) -> None:
    peer = await receive(kv=layout(range(1, 3), 16, order), kv_blocks=6)
    assert await shard(sender_with("cuda_ipc"), range(NUM_HEADS), 8).send(peer) == "cuda_ipc"
    assert_arrived(peer)
    assert (len(cuda.exported), cuda.opened) == (1, [1])


async def test_copies_wait_for_the_device_and_not_the_host(
    cuda: FakeCuda, fences: list[FakeFence], receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    written = source.tensor.clone()
    source.tensor.zero_()
    fences += [FakeFence(), FakeFence(lambda: source.tensor.copy_(written))]
    peer = await receive()
    outgoing = await sender_with().open(peer.address, KEY, PayloadKind.KV, 0, 20, source)
    for count in (1, 2):
        outgoing.push(0, 20, range(6), range(4))
        await until(lambda count=count: cuda.streams and cuda.streams[0].num_copies == count)
    fences[0].finish()
    await until(lambda: cuda.streams[0].queue[:1] == [fences[1]])
    assert not peer.kv.tensor.any()
    fences[1].finish()
    await outgoing.commit(20)
    assert torch.equal(peer.kv.read_tokens(peer.host.kv[0][1], 20), source.read_tokens(range(4), 20))


async def test_a_stopped_transfer_waits_for_its_copies(
    cuda: FakeCuda, fences: list[FakeFence], receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    """Those on the stream; what was pushed after them is not copied any more."""
    fences += [FakeFence(), FakeFence()]
    peer = await receive()
    sender = sender_with()
    outgoing = await sender.open(peer.address, KEY, PayloadKind.KV, 0, 20, source)
    outgoing.push(0, 20, range(3), range(4))
    await until(lambda: cuda.streams and cuda.streams[0].num_copies == 1)
    writer = outgoing._writer
    writer._is_stopped = True  # type: ignore[attr-defined]
    outgoing.push(0, 20, range(3, 6), range(4))
    sender.forget("receiver")
    assert cuda.closed == []
    fences[0].finish()
    fences[1].finish()
    await outgoing.abort("cancelled")
    assert cuda.closed == [1]
    assert cuda.streams[0].num_copies == 1
    peer.assert_nothing_is_held()


async def test_copies_that_never_end_leave_the_lease_to_expire(
    cuda: FakeCuda,
    fences: list[FakeFence],
    receive: Receive,
    sender_with: MakeSender,
    source: Pool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cuda_writer, "STOP_TIMEOUT_S", 0.01)
    fences += [FakeFence()]
    peer = await receive()
    outgoing = await sender_with().open(peer.address, KEY, PayloadKind.KV, 0, 20, source)
    outgoing.push(0, 20, range(6), range(4))
    await until(lambda: cuda.streams and cuda.streams[0].num_copies == 1)
    await outgoing.abort("cancelled")
    assert (peer.num_open, cuda.closed) == (1, [])


async def test_slices_on_the_stream_are_bounded(
    cuda: FakeCuda,
    fences: list[FakeFence],
    receive: Receive,
    sender_with: MakeSender,
    source: Pool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cuda_writer, "SLICE_BYTES", 32)  # one token
    fences += [FakeFence()]
    peer = await receive()
    outgoing = await sender_with().open(peer.address, KEY, PayloadKind.KV, 0, 20, source)
    outgoing.push(0, 20, range(6), range(4))
    await until(lambda: cuda.streams and cuda.streams[0].num_copies == cuda_writer.MAX_BEHIND)
    fences[0].finish()
    await outgoing.commit(20)
    assert cuda.streams[0].num_copies == 120


@pytest.mark.parametrize("method", ["open", "check_access", "memory"])
async def test_memory_that_cannot_be_reached_falls_through(
    method: str, cuda: FakeCuda, receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    cuda.problems[method] = "cuIpcOpenMemHandle_v2: CUDA_ERROR_MAP_FAILED"
    peer = await receive()
    sender = sender_with()
    assert await send(sender, peer, source) == "shm"
    assert await send(sender, peer, source) == "shm"
    assert len(cuda.opened) == (0 if method == "open" else 1)
    with pytest.raises(TransferError, match="CUDA_ERROR_MAP_FAILED"):
        await send(sender_with("cuda_ipc"), peer, source)
    peer.assert_nothing_is_held()


@pytest.mark.parametrize(("reason", "words"), [("export", "no handles here"), ("host", "another host")])
async def test_a_receiver_says_why_not(
    reason: str, words: str, cuda: FakeCuda, receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    options = {}
    if reason == "export":
        cuda.problems["export"] = "no handles here"
    else:
        options["host_id"] = "elsewhere"
        peer.address = PeerAddress("receiver", peer.address.endpoint, "elsewhere", 7)
    with pytest.raises(TransferError, match=f"cuda_ipc: .*{words}"):
        await send(sender_with("cuda_ipc", **options), peer, source)
    assert await send(sender_with("cuda_ipc", "grpc", **options), peer, source) == "grpc"


async def test_another_life_of_a_peer_is_opened_anew(
    cuda: FakeCuda, receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    sender = sender_with("cuda_ipc")
    old = await receive(is_shared=False)
    await send(sender, old, source)
    await old.server.stop(None)
    new = await receive(is_shared=False, epoch=8)
    cuda.problems["close"] = "the owner is gone"  # logged, and no more than that
    await send(sender, new, source)
    assert (cuda.opened, cuda.closed) == ([1, 2], [1])


async def test_a_sender_that_slept_too_long_copies_nothing(
    cuda: FakeCuda, receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    clock = ManualClock()
    peer = await receive()
    outgoing = await sender_with(clock=clock).open(peer.address, KEY, PayloadKind.KV, 0, 20, source)
    clock.advance(30.0)
    outgoing.push(0, 20, range(6), range(4))
    with pytest.raises(TransferError) as caught:
        await outgoing.commit(20)
    assert caught.value.cause == "LEASE_OVER"
    assert not peer.kv.tensor.any()
    peer.assert_nothing_is_held()
    assert cuda.closed == []


def test_it_is_refused_where_there_is_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "cuda_ipc" not in usable(None)
    with pytest.raises(ValueError, match="cuda_ipc cannot be had here: .*CUDA"):
        usable(["cuda_ipc"])


@pytest.mark.gpu
@needs_gpu
async def test_bytes_arrive_in_another_process_of_the_card(start: Start, sender_with: MakeSender) -> None:
    pool = Pool(OTHER_BLOCKS, 12, device="cuda:0")
    pool.tensor.copy_(torch.randn(pool.tensor.shape))
    child, address = await receiving(start, CLUSTER, device="cuda:0")
    sender = sender_with("cuda_ipc")
    for attempt, blocks in enumerate(([3, 9, 10, 0, 7], [11, 2, 1, 5, 6])):
        outgoing = await sender.open(address, ("req", attempt), PayloadKind.KV, 0, 23, pool)
        for first, count in ((0, 9), (9, 14)):
            for layer in range(3):
                outgoing.push(first, count, range(2 * layer, 2 * layer + 2), blocks)
        await outgoing.commit(23, (1, 2))
        assert await child.hear() == {"digest": digest(pool, blocks, 23), "outputs": [1, 2]}
    assert await child.finish() == {"free": 32}


@pytest.mark.gpu
@needs_gpu
async def test_a_killed_receiver_on_the_card_is_an_error_here(start: Start, sender_with: MakeSender) -> None:
    pool = Pool(OTHER_BLOCKS, 12, device="cuda:0")
    child, address = await receiving(start, CLUSTER, device="cuda:0")
    sender = sender_with("cuda_ipc")
    outgoing = await sender.open(address, KEY, PayloadKind.KV, 0, 20, pool)
    outgoing.push(0, 20, range(6), range(4))
    await child.kill()
    with pytest.raises(TransferError):
        await outgoing.commit(20)
    sender.forget("child")
    torch.cuda.synchronize()
