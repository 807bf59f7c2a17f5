"""KV goes from any number of shards, block size and order to any other, and every value arrives."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
import torch

from kv_transfer.errors import TransferError
from kv_transfer.layout import MemoryOrder, PayloadKind, PoolLayout
from kv_transfer.leases import LeaseState
from kv_transfer.pool import Pool, kv_layout
from kv_transfer.sender import Sender
from kv_transfer.source import TensorSource
from tests.kv_transfer.loopback import FINGERPRINT, KEY, MakeSender, Receive, Receiving, needs_nixl

NUM_LAYERS, NUM_HEADS, HEAD_DIM, NUM_TOKENS = 2, 4, 2, 37
SHARDS = (1, 2, 4)
BLOCK_TOKENS = (8, 16, 32)
TRANSPORTS = pytest.mark.parametrize("transport", ["shm", "grpc"])
OWN = MemoryOrder.PLANE_BLOCK_TOKEN_HEAD
TRUTH = torch.randn(
    2 * NUM_LAYERS, NUM_TOKENS, NUM_HEADS, HEAD_DIM, generator=torch.Generator().manual_seed(3)
)


@dataclass
class Shard:
    """A sending shard: its heads of the truth in scattered blocks."""

    sender: Sender
    pool: Pool
    blocks: list[int]

    async def send(self, peer: Receiving, outputs: tuple[int, ...] = (7,)) -> str:
        """In two chunks, layer by layer; returns the transport."""
        kv = PayloadKind.KV
        outgoing = await self.sender.open(peer.address, KEY, kv, 0, NUM_TOKENS, self.pool)
        assert outgoing.transfer.grant.layout == peer.kv.layout
        for first, count in ((0, 19), (19, NUM_TOKENS - 19)):
            for layer in range(NUM_LAYERS):
                outgoing.push(first, count, range(2 * layer, 2 * layer + 2), self.blocks)
        await outgoing.commit(NUM_TOKENS, outputs)
        return outgoing.transport


def layout(heads: range, block_tokens: int, order: MemoryOrder = OWN) -> PoolLayout:
    return kv_layout(
        FINGERPRINT,
        torch.float32,
        num_layers=NUM_LAYERS,
        num_heads=NUM_HEADS,
        head_dim=HEAD_DIM,
        block_tokens=block_tokens,
        heads=heads,
        order=order,
    )


def split(num_shards: int) -> list[range]:
    size = NUM_HEADS // num_shards
    return [range(first, first + size) for first in range(0, NUM_HEADS, size)]


def shard(sender: Sender, heads: range, block_tokens: int, order: MemoryOrder = OWN) -> Shard:
    pool = Pool(layout(heads, block_tokens, order), -(-NUM_TOKENS // block_tokens) + 2)
    blocks = pool.blocks.allocate(pool.num_blocks)[::-1]
    blocks[0], blocks[1] = blocks[1], blocks[0]
    for plane in range(2 * NUM_LAYERS):
        pool.write_tokens(plane, blocks, 0, TRUTH[plane, :, heads.start : heads.stop])
    return Shard(sender, pool, blocks)


def assert_arrived(peer: Receiving, outputs: tuple[int, ...] = (7,)) -> None:
    [(key, blocks, num_tokens, got)] = peer.host.kv
    assert (key, num_tokens, got) == (KEY, NUM_TOKENS, outputs)
    heads = peer.kv.layout.heads
    for plane in range(2 * NUM_LAYERS):
        values = peer.kv.read_tokens(blocks, num_tokens, plane=plane).view(NUM_TOKENS, -1, HEAD_DIM)
        assert torch.equal(values, TRUTH[plane, :, heads.start : heads.stop])
    peer.kv.blocks.release(blocks)
    peer.assert_nothing_is_held()


@TRANSPORTS
@pytest.mark.parametrize("target_tokens", BLOCK_TOKENS)
@pytest.mark.parametrize("source_tokens", BLOCK_TOKENS)
@pytest.mark.parametrize("num_targets", SHARDS)
@pytest.mark.parametrize("num_sources", SHARDS)
async def test_any_shards_to_any_shards(
    transport: str,
    num_sources: int,
    num_targets: int,
    source_tokens: int,
    target_tokens: int,
    receive: Receive,
    sender_with: MakeSender,
) -> None:
    peers = [
        await receive(kv=layout(heads, target_tokens), kv_blocks=6, instance_id=f"target-{i}")
        for i, heads in enumerate(split(num_targets))
    ]
    shards = [
        shard(sender_with(transport, instance_id=f"source-{i}"), heads, source_tokens)
        for i, heads in enumerate(split(num_sources))
    ]
    pairs = [
        (each, peer) for each in shards for peer in peers if each.pool.layout.common_heads(peer.kv.layout)
    ]
    used = await asyncio.gather(*(each.send(peer) for each, peer in pairs))
    assert used == [transport] * max(num_sources, num_targets)
    moved = sum(each.sender.stats.of(peer.address.instance_id, transport).size_bytes for each, peer in pairs)
    assert moved == TRUTH.nbytes
    for peer in peers:
        assert_arrived(peer)


@pytest.mark.parametrize("transport", ["shm", pytest.param("nixl", marks=needs_nixl), "grpc"])
@pytest.mark.parametrize("target_order", MemoryOrder)
@pytest.mark.parametrize("source_order", MemoryOrder)
async def test_any_order_to_any_order(
    transport: str,
    source_order: MemoryOrder,
    target_order: MemoryOrder,
    receive: Receive,
    sender_with: MakeSender,
) -> None:
    """Checksums are of the same bytes at both ends."""
    peer = await receive(kv=layout(range(NUM_HEADS), 8, target_order), kv_blocks=6, checksums=True)
    sender = sender_with(transport)
    for heads in split(2):
        await shard(sender, heads, 16, source_order).send(peer)
    assert_arrived(peer)


@TRANSPORTS
async def test_checksums_are_of_the_heads_that_both_ends_hold(
    transport: str, receive: Receive, sender_with: MakeSender
) -> None:
    peer = await receive(kv=layout(range(1, 3), 8), kv_blocks=6, checksums=True)
    await shard(sender_with(transport), range(NUM_HEADS), 16).send(peer)
    assert_arrived(peer)


async def test_parts_are_compared_at_once(receive: Receive, sender_with: MakeSender) -> None:
    peer = await receive(kv=layout(range(NUM_HEADS), 16), kv_blocks=6, checksums=True)
    senders = [sender_with("shm", instance_id=f"source-{i}") for i in range(4)]
    shards = [shard(sender, heads, 8) for sender, heads in zip(senders, split(4), strict=True)]
    await asyncio.gather(*(each.send(peer) for each in shards))
    assert_arrived(peer)


async def test_a_part_that_arrives_changed_takes_the_others_along(
    receive: Receive, sender_with: MakeSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = await receive(kv=layout(range(NUM_HEADS), 16), kv_blocks=6, checksums=True)
    sender = sender_with("shm")
    first, second = (shard(sender, heads, 8) for heads in split(2))
    await first.send(peer)
    monkeypatch.setattr(peer.receiver._arrivals, "_checksums", lambda *_: (0,) * 3)
    with pytest.raises(TransferError, match="3 of 3 blocks") as caught:
        await second.send(peer)
    assert (caught.value.cause, peer.host.kv) == ("CHECKSUM", [])
    peer.assert_nothing_is_held()


async def test_parts_may_come_by_different_transports(receive: Receive, sender_with: MakeSender) -> None:
    peer = await receive(kv=layout(range(NUM_HEADS), 16), kv_blocks=6)
    for transport, heads in zip(("shm", "grpc"), split(2), strict=True):
        assert await shard(sender_with(transport, instance_id=transport), heads, 8).send(peer) == transport
    assert_arrived(peer)


@TRANSPORTS
@pytest.mark.parametrize("order", MemoryOrder)
async def test_device_memory_is_read_head_by_head(
    transport: str,
    order: MemoryOrder,
    receive: Receive,
    sender_with: MakeSender,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A device is played by a source that offers no view."""
    monkeypatch.setattr(TensorSource, "is_on_device", True)
    peer = await receive(kv=layout(range(1, 3), 16), kv_blocks=6)
    await shard(sender_with(transport), range(NUM_HEADS), 8, order).send(peer)
    assert_arrived(peer)


@TRANSPORTS
async def test_a_shard_that_fails_takes_the_others_along(
    transport: str, receive: Receive, sender_with: MakeSender
) -> None:
    peer = await receive(kv=layout(range(NUM_HEADS), 16), kv_blocks=6)
    senders = [sender_with(transport, instance_id=f"source-{i}") for i in range(3)]
    shards = [shard(sender, heads, 8) for sender, heads in zip(senders, split(4)[:3], strict=True)]
    await shards[0].send(peer)
    lost, failing = [
        await each.sender.open(peer.address, KEY, PayloadKind.KV, 0, NUM_TOKENS, each.pool)
        for each in shards[1:]
    ]
    states = [lease.state for lease in peer.receiver.leases]
    assert states == [LeaseState.ARRIVED, LeaseState.GRANTED, LeaseState.GRANTED]
    await failing.abort("the shard failed")
    assert not peer.receiver.leases.of_request(KEY)
    assert peer.receiver.leases.num_quarantined_blocks == (3 if transport == "shm" else 0)
    await lost.abort("told to stop")
    assert peer.host.kv == []
    peer.assert_nothing_is_held()
