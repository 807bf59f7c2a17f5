"""Bytes arrive exactly, over every transport."""

from __future__ import annotations

import asyncio

import pytest
import torch

from kv_transfer.layout import PayloadKind
from kv_transfer.pool import Pool, kv_layout
from kv_transfer.source import TensorSource
from tests.kv_transfer.loopback import EACH, FINGERPRINT, KEY, MakeSender, Receive, Receiving

pytestmark = pytest.mark.parametrize("transport", EACH)

SCATTERED = [3, 9, 10, 11, 0, 7]  # 30 tokens of the source


def assert_arrived(
    peer: Receiving, blocks: list[int], source: Pool, source_blocks: list[int], count: int
) -> None:
    for plane in range(source.layout.num_planes):
        expected = source.read_tokens(source_blocks, count, plane=plane)
        assert torch.equal(peer.kv.read_tokens(blocks, count, plane=plane), expected)


async def test_kv_goes_layer_by_layer_in_chunks(
    transport: str, receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    sender = sender_with(transport)
    outgoing = await sender.open(peer.address, KEY, PayloadKind.KV, 0, 27, source)
    assert outgoing.transport == transport
    for first, count in ((0, 7), (7, 8), (15, 12)):
        for layer in range(3):
            planes = range(2 * layer, 2 * layer + 2)
            await asyncio.to_thread(outgoing.push, first, count, planes, SCATTERED)
    await outgoing.commit(27, (5, 6))

    [(key, blocks, num_tokens, outputs)] = peer.host.kv
    assert (key, num_tokens, outputs, len(blocks)) == (KEY, 27, (5, 6), 7)
    assert_arrived(peer, blocks, source, SCATTERED, 27)
    stats = sender.stats.of("receiver", transport)
    assert (stats.committed, stats.size_bytes, stats.in_flight) == (1, 27 * 6 * 32, 0)
    peer.kv.blocks.release(blocks)
    peer.assert_nothing_is_held()


async def test_into_scattered_blocks(
    transport: str, receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    taken = peer.kv.blocks.allocate(16)
    peer.kv.blocks.release([1, 4, 5, 9, 15])
    outgoing = await sender_with(transport).open(peer.address, KEY, PayloadKind.KV, 0, 18, source)
    outgoing.push(0, 18, range(6), SCATTERED)
    await outgoing.commit(18)
    [(_, blocks, _, _)] = peer.host.kv
    assert blocks == [4, 5, 1, 9, 15]
    assert_arrived(peer, blocks, source, SCATTERED, 18)
    free = set(range(16)) - set(blocks)
    untouched = [plane for plane in range(6) for block in free if peer.kv.tensor[plane, block].any()]
    assert untouched == []
    assert len(taken) == 16


async def test_several_transfers_at_once(
    transport: str, receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    sender = sender_with(transport)
    keys = [(f"req-{i}", i) for i in range(4)]
    peer.host.known.update(keys)

    async def send(index: int) -> None:
        outgoing = await sender.open(peer.address, keys[index], PayloadKind.KV, 0, 13, source)
        for plane in range(6):
            outgoing.push(0, 13, range(plane, plane + 1), SCATTERED[index:])
            await asyncio.sleep(0)
        await outgoing.commit(13)

    await asyncio.gather(*map(send, range(4)))
    assert {key for key, _, _, _ in peer.host.kv} == set(keys)
    for key, blocks, _, _ in peer.host.kv:
        assert_arrived(peer, blocks, source, SCATTERED[key[1] :], 13)


async def test_tokens_computed_again_arrive_anew(
    transport: str, receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    outgoing = await sender_with(transport).open(peer.address, KEY, PayloadKind.KV, 0, 20, source)
    outgoing.push(0, 20, range(6), [1, 2, 3, 4])
    outgoing.push(0, 20, range(6), SCATTERED)
    await outgoing.commit(20)
    assert_arrived(peer, peer.host.kv[0][1], source, SCATTERED, 20)


async def test_surplus_blocks_go_back(
    transport: str, receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    outgoing = await sender_with(transport).open(peer.address, KEY, PayloadKind.KV, 0, 30, source)
    outgoing.push(0, 9, range(6), SCATTERED)
    await outgoing.commit(9)
    [(_, blocks, num_tokens, _)] = peer.host.kv
    assert (len(blocks), num_tokens) == (3, 9)
    assert peer.kv.blocks.num_free == 13


async def test_embedding(transport: str, receive: Receive, sender_with: MakeSender) -> None:
    peer = await receive()
    embedding = torch.randn(24, 35).to(torch.bfloat16).T  # not contiguous
    assert await sender_with(transport).send_embedding(peer.address, KEY, 2, embedding) == transport
    [(key, item_index, blocks, num_tokens)] = peer.host.embeddings
    assert (key, item_index, num_tokens, len(blocks)) == (KEY, 2, 35, 3)
    assert torch.equal(peer.embeddings.read_tokens(blocks, 35), embedding)
    assert peer.host.expected == [(KEY, PayloadKind.EMBEDDING, 2, 35)]


async def test_more_than_a_message_holds(transport: str, receive: Receive, sender_with: MakeSender) -> None:
    layout = kv_layout(
        FINGERPRINT, torch.float32, num_layers=1, num_heads=1, head_dim=100_000, block_tokens=2
    )
    peer = await receive(kv=layout, kv_blocks=6)
    source = Pool(layout, 6)
    source.tensor.copy_(torch.randn(source.tensor.shape))
    outgoing = await sender_with(transport).open(peer.address, KEY, PayloadKind.KV, 0, 11, source)
    outgoing.push(0, 11, range(2), [5, 1, 2, 3, 0, 4])
    await outgoing.commit(11)
    assert_arrived(peer, peer.host.kv[0][1], source, [5, 1, 2, 3, 0, 4], 11)


async def test_device_memory_is_read_after_its_fence(
    transport: str, receive: Receive, sender_with: MakeSender, source: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device is played by a source that offers no view and fences what it wrote."""

    class Fence:
        def synchronize(self) -> None:
            source.tensor.copy_(written)

    written = source.tensor.clone()
    source.tensor.zero_()
    monkeypatch.setattr(TensorSource, "is_on_device", True)
    monkeypatch.setattr(TensorSource, "fence", lambda _: Fence())
    peer = await receive()
    outgoing = await sender_with(transport).open(peer.address, KEY, PayloadKind.KV, 0, 27, source)
    outgoing.push(0, 27, range(6), SCATTERED)
    await outgoing.commit(27)
    assert written.any()
    assert_arrived(peer, peer.host.kv[0][1], source, SCATTERED, 27)
