"""Parts of an item share its blocks, arrive together or not at all, and leave nothing behind."""

from __future__ import annotations

import asyncio

import grpc
import pytest
import torch

from core.clock import ManualClock
from elasticmm.v1 import transfer_pb2
from kv_transfer.layout import PayloadKind, PoolLayout
from kv_transfer.leases import LeaseState
from kv_transfer.pool import kv_layout
from kv_transfer.wire import layout_to
from tests.kv_transfer.loopback import FINGERPRINT, KEY, Receive, Receiving, until
from tests.kv_transfer.raw import Raw, refused

HEAD_BYTES = 16
INVALID = grpc.StatusCode.INVALID_ARGUMENT
GONE = grpc.StatusCode.FAILED_PRECONDITION
ARRIVED = transfer_pb2.CommitResponse(num_tokens=8, num_planes=2, num_blocks=2)


def layout(heads: range) -> PoolLayout:
    """Of a model with 4 KV heads, in one layer."""
    return kv_layout(
        FINGERPRINT, torch.float32, num_layers=1, num_heads=4, head_dim=4, block_tokens=4, heads=heads
    )


ALL = layout(range(4))


class Parts(Raw):
    """Senders of single heads, "shard-0" to "shard-3"."""

    async def part(self, head: int, **fields: object) -> int:
        """Opens it; returns the lease id."""
        shard = {"layout": layout_to(layout(range(head, head + 1))), "sender_instance_id": f"shard-{head}"}
        return (await self.open(**(shard | fields))).lease_id

    async def fill(self, lease_id: int, num_tokens: int = 8) -> None:
        data = bytes([1]) * HEAD_BYTES * num_tokens
        await self.write(
            *(transfer_pb2.WriteRequest(lease_id=lease_id, plane=plane, data=data) for plane in range(2))
        )

    async def commit_part(
        self, lease_id: int, num_tokens: int = 8, outputs: tuple[int, ...] = ()
    ) -> transfer_pb2.CommitResponse:
        return await self.commit(lease_id, num_tokens, outputs, written_bytes=num_tokens * 2 * HEAD_BYTES)

    async def bring(self, head: int, outputs: tuple[int, ...] = ()) -> int:
        lease_id = await self.part(head)
        await self.fill(lease_id)
        await self.commit_part(lease_id, 8, outputs)
        return lease_id


def states(peer: Receiving) -> list[LeaseState]:
    return [lease.state for lease in peer.receiver.leases]


async def test_blocks_are_handed_over_once_when_all_heads_are_there(receive: Receive) -> None:
    peer = await receive(kv=ALL)
    async with Parts(peer) as parts:
        for head in (2, 0, 3):
            await parts.bring(head, (5,))
            peer.receiver.check_integrity()
        assert states(peer) == [LeaseState.ARRIVED] * 3
        assert (peer.host.kv, peer.kv.blocks.num_free) == ([], 14)
        await parts.bring(1, (5,))
    [(_, blocks, num_tokens, outputs)] = peer.host.kv
    assert (num_tokens, outputs) == (8, (5,))
    assert [peer.kv.blocks.references(block) for block in blocks] == [1, 1]
    peer.kv.blocks.release(blocks)
    peer.assert_nothing_is_held()


async def test_surplus_blocks_go_back_once(receive: Receive) -> None:
    peer = await receive(kv=ALL)
    async with Parts(peer) as parts:
        for head in range(4):
            lease_id = await parts.part(head)
            await parts.fill(lease_id, 3)
            await parts.commit_part(lease_id, 3)
    [(_, blocks, _, _)] = peer.host.kv
    assert (len(blocks), peer.kv.blocks.num_free) == (1, 15)
    peer.receiver.check_integrity()


async def test_a_missing_shard_never_hands_over(receive: Receive) -> None:
    clock = ManualClock()
    peer = await receive(kv=ALL, clock=clock, lease_s=30.0)
    leases = peer.receiver.leases
    async with Parts(peer) as parts:
        for head in range(3):
            await parts.bring(head)
            clock.advance(20.0)
            leases.sweep()
        assert states(peer) == [LeaseState.ARRIVED] * 3  # a later part keeps the earlier ones
        clock.advance(10.0)
        leases.sweep()
    assert peer.host.kv == []
    peer.assert_nothing_is_held()


async def test_parts_wait_as_long_as_another_is_being_written(receive: Receive) -> None:
    clock = ManualClock()
    peer = await receive(kv=ALL, clock=clock, lease_s=30.0)
    async with Parts(peer) as parts:
        await parts.bring(0)
        writing = await parts.part(1)
        for _ in range(4):
            clock.advance(20.0)
            await parts.write(transfer_pb2.WriteRequest(lease_id=writing))
            peer.receiver.leases.sweep()
        assert states(peer) == [LeaseState.ARRIVED, LeaseState.WRITING]
        clock.advance(30.0)
        peer.receiver.leases.sweep()
        with refused(GONE, "expired, nothing was heard of it"):
            await parts.commit_part(writing, 8)
    peer.assert_nothing_is_held()


async def test_parts_join_where_the_pool_has_no_more_room(receive: Receive) -> None:
    peer = await receive(kv=ALL, kv_blocks=2)
    async with Parts(peer) as parts:
        for head in range(4):
            await parts.bring(head)
    assert len(peer.host.kv) == 1


async def test_parts_that_wait_for_room_together_get_the_same(receive: Receive) -> None:
    peer = await receive(kv=ALL, kv_blocks=3)
    held = peer.kv.blocks.allocate(3)
    async with Parts(peer) as parts:
        opening = [asyncio.create_task(parts.part(head)) for head in range(4)]
        await until(lambda: len(peer.host.expected) == 4)
        await until(lambda: peer.receiver.rooms[PayloadKind.KV].num_waiting)
        assert peer.receiver.rooms[PayloadKind.KV].num_waiting == 1
        opening.pop(0).cancel()  # the next one waits for room instead
        await until(lambda: len(peer.receiver._opening) == 3)
        peer.kv.blocks.release(held)
        lease_ids = await asyncio.gather(*opening)
        assert {lease.block_ids for lease in peer.receiver.leases} == {(0, 1)}
        await parts.abort(lease_ids[0])
    peer.assert_nothing_is_held()


DISAGREEING = [
    ({"num_tokens": 8, "outputs": (6,)}, "output_token_ids: another part of the item has others"),
    ({"num_tokens": 7, "outputs": (5,)}, "num_tokens: 7, another part of the item has 8"),
]


@pytest.mark.parametrize(("commit", "words"), DISAGREEING, ids=["outputs", "tokens"])
async def test_parts_must_agree(receive: Receive, commit: dict[str, object], words: str) -> None:
    peer = await receive(kv=ALL)
    async with Parts(peer) as parts:
        await parts.bring(0, (5,))
        lease_id = await parts.part(1)
        await parts.fill(lease_id)
        with refused(INVALID, words):
            await parts.commit_part(lease_id, **commit)
    assert peer.host.kv == []
    peer.assert_nothing_is_held()


async def test_parts_of_different_length_are_not_opened(receive: Receive) -> None:
    peer = await receive(kv=ALL)
    async with Parts(peer) as parts:
        first = await parts.part(0)
        with refused(INVALID, "num_tokens: 9, other parts of the item have 8"):
            await parts.part(1, num_tokens=9)
        await parts.abort(first)
    peer.assert_nothing_is_held()


async def test_a_part_that_is_opened_again_starts_the_item_anew(receive: Receive) -> None:
    peer = await receive(kv=ALL)
    async with Parts(peer) as parts:
        other, first = await parts.part(1), await parts.bring(0)
        again = await parts.part(0)
        assert [lease.lease_id for lease in peer.receiver.leases] == [again]
        with refused(GONE, "another part of the item ended: the sender opened the same transfer again"):
            await parts.commit_part(other, 8)
        with refused(GONE, "opened the same transfer again"):
            await parts.commit_part(first, 8)
        await parts.abort(again)
    peer.assert_nothing_is_held()


async def test_one_sender_of_all_heads_ends_the_parts(receive: Receive) -> None:
    peer = await receive(kv=ALL)
    async with Parts(peer) as parts:
        await parts.part(0)
        await parts.bring(1)
        whole = (await parts.open(layout=layout_to(ALL))).lease_id
        assert [lease.lease_id for lease in peer.receiver.leases] == [whole]
        await parts.abort(whole)
    peer.assert_nothing_is_held()


async def test_an_arrived_part_takes_its_commit_again_and_no_bytes(receive: Receive) -> None:
    peer = await receive(kv=ALL)
    async with Parts(peer) as parts:
        lease_id = await parts.bring(0)
        assert await parts.commit_part(lease_id, 8) == ARRIVED
        with refused(GONE, "is arrived: waits for the other parts"):
            await parts.fill(lease_id)
        assert states(peer) == [LeaseState.ARRIVED]
        peer.receiver.release_request(KEY)
    peer.assert_nothing_is_held()


async def test_the_host_refuses_what_is_complete(receive: Receive) -> None:
    peer = await receive(kv=ALL)
    peer.host.refuses = True
    async with Parts(peer) as parts:
        for head in range(3):
            await parts.bring(head)
        with refused(grpc.StatusCode.NOT_FOUND, "the request is gone"):
            await parts.bring(3)
    peer.assert_nothing_is_held()


@pytest.mark.parametrize("num_arrived", [0, 1, 2])
async def test_the_request_ends(receive: Receive, num_arrived: int) -> None:
    peer = await receive(kv=ALL)
    async with Parts(peer) as parts:
        for head in range(num_arrived):
            await parts.bring(head)
        await parts.part(3)
        peer.receiver.release_request(KEY, "cancelled")
    peer.assert_nothing_is_held()
