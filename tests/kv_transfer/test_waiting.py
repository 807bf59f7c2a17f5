"""Open waits for the request and for room, in order, and leaves nothing behind."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from kv_transfer.blocks import BlockAllocator, OutOfBlocks
from kv_transfer.errors import TransferError
from kv_transfer.layout import PayloadKind
from kv_transfer.pool import Pool
from kv_transfer.room import Room
from tests.kv_transfer.loopback import KEY, MakeSender, Receive, Receiving, until
from tests.kv_transfer.raw import Raw, refused


async def test_open_waits_until_the_request_is_known(
    receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    peer.host.known.clear()
    opening = asyncio.create_task(sender_with().open(peer.address, KEY, PayloadKind.KV, 0, 4, source))
    await until(lambda: peer.host.expected)
    assert peer.kv.blocks.num_free == 16
    await peer.host.learn(KEY)
    await (await opening).abort("done")


def full_pool(size: int) -> tuple[BlockAllocator, list[int], list[int]]:
    """The pool, all its blocks, and what their holder has been asked for so far."""
    blocks = BlockAllocator(size)
    asked: list[int] = []
    blocks.call_when_short(asked.append)
    return blocks, blocks.allocate(size), asked


async def test_open_waits_until_blocks_are_free(
    receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    held = peer.kv.blocks.allocate(14)
    opening = asyncio.create_task(sender_with().open(peer.address, KEY, PayloadKind.KV, 0, 16, source))
    await until(lambda: room(peer).num_waiting)
    peer.kv.blocks.release(held[:1])
    await asyncio.sleep(0.01)
    assert not opening.done()
    await asyncio.to_thread(peer.kv.blocks.release, held[1:])
    outgoing = await opening
    outgoing.push(0, 16, range(6), range(4))
    await outgoing.commit(16)
    peer.kv.blocks.release(peer.host.kv[0][1])
    peer.assert_nothing_is_held()


async def test_who_holds_what_it_could_do_without_is_asked_for_it() -> None:
    blocks, held, asked = full_pool(4)
    taking = asyncio.create_task(Room(blocks).take(3))
    await until(lambda: asked)
    assert asked == [3]
    await asyncio.to_thread(blocks.release, held)
    assert len(await taking) == 3
    assert asked == [3, 0]


async def test_what_all_wait_for_is_asked_for_at_once() -> None:
    """An answer takes a step of the engine: one by one, no more could come in than there are steps."""
    blocks, held, asked = full_pool(12)
    room = Room(blocks)
    first = asyncio.create_task(room.take(2))
    await until(lambda: asked == [2])
    others = [asyncio.create_task(room.take(count)) for count in (3, 4)]
    prefix = asyncio.create_task(room.take(1, gives_way=True))
    await until(lambda: room.num_waiting == 4)
    blocks.release(held[:1])
    await until(lambda: asked == [2, 9])
    blocks.release(held[1:10])
    await asyncio.gather(first, *others, prefix)
    assert asked == [2, 9, 0]
    assert blocks.num_free == 0


async def test_who_leaves_is_waited_for_no_more() -> None:
    blocks, held, asked = full_pool(4)
    taking = asyncio.create_task(Room(blocks).take(3))
    await until(lambda: asked)
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)
    assert asked == [3, 0]
    blocks.release(held)


async def test_the_deadline_passes(receive: Receive, sender_with: MakeSender, source: Pool) -> None:
    peer = await receive()
    held = peer.kv.blocks.allocate(16)
    sender = sender_with(open_timeout_s=0.05)
    with pytest.raises(TransferError) as caught:
        await sender.open(peer.address, KEY, PayloadKind.KV, 0, 16, source)
    assert caught.value.cause == "DEADLINE_EXCEEDED"
    await until(lambda: not room(peer).num_waiting)
    peer.kv.blocks.release(held)
    peer.assert_nothing_is_held()


@pytest.mark.parametrize("has_room", [True, False])
async def test_a_request_that_ends_while_it_is_waited_for(
    receive: Receive, sender_with: MakeSender, source: Pool, has_room: bool
) -> None:
    peer = await receive()
    if has_room:
        peer.host.known.clear()
        held = []
    else:
        held = peer.kv.blocks.allocate(16)
    opening = asyncio.create_task(sender_with().open(peer.address, KEY, PayloadKind.KV, 0, 4, source))
    await until(lambda: peer.host.expected if has_room else room(peer).num_waiting)
    peer.receiver.release_request(KEY)
    with pytest.raises(TransferError, match="has ended here") as caught:
        await opening
    assert caught.value.cause == "NOT_FOUND"
    peer.kv.blocks.release(held)
    peer.assert_nothing_is_held()


async def test_a_sender_that_leaves_while_asking_leaves_nothing(
    receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    held = peer.kv.blocks.allocate(16)
    opening = asyncio.create_task(sender_with().open(peer.address, KEY, PayloadKind.KV, 0, 4, source))
    await until(lambda: room(peer).num_waiting)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await until(lambda: not room(peer).num_waiting)
    peer.kv.blocks.release(held)
    await asyncio.sleep(0.01)
    peer.assert_nothing_is_held()


async def test_a_sender_that_leaves_at_any_moment_of_asking_leaves_nothing(
    receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    sender = sender_with()
    for ticks in range(0, 40, 2):
        opening = asyncio.create_task(sender.open(peer.address, KEY, PayloadKind.KV, 0, 4, source))
        for _ in range(ticks):
            await asyncio.sleep(0.0001)
        if opening.done():
            await opening.result().abort("done")
            continue
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        await until(lambda: not sender._background)  # it has said so: the next asks for the same
    await until(lambda: not peer.num_open)
    await until(lambda: not list(peer.receiver.leases))
    peer.assert_nothing_is_held()


async def test_first_come_first_served() -> None:
    blocks = BlockAllocator(4)
    waiting_room = Room(blocks)
    held = blocks.allocate(4)
    order: list[str] = []

    async def take(name: str, count: int) -> None:
        await waiting_room.take(count)
        order.append(name)

    tasks = [asyncio.create_task(take("large", 3)), asyncio.create_task(take("small", 1))]
    await asyncio.sleep(0)
    blocks.release(held[:1])
    await asyncio.sleep(0.01)
    assert order == []
    blocks.release(held[1:])
    await asyncio.gather(*tasks)
    assert order == ["large", "small"]


async def test_who_gives_way_holds_nobody_up() -> None:
    blocks = BlockAllocator(4)
    waiting_room = Room(blocks)
    held = blocks.allocate(4)
    order: list[str] = []

    async def take(name: str, count: int, *, gives_way: bool) -> None:
        taken = await waiting_room.take(count, gives_way=gives_way)
        order.append(name)
        blocks.release(taken)

    names = [("a", 4, True), ("b", 2, False), ("c", 1, True), ("d", 2, False)]
    tasks = [asyncio.create_task(take(name, count, gives_way=way)) for name, count, way in names]
    await until(lambda: waiting_room.num_waiting == 4)
    blocks.release(held[:2])
    await asyncio.gather(tasks[1], tasks[3])
    assert order == ["b", "d"]
    tasks[0].cancel()
    await tasks[2]
    blocks.release(held[2:])
    assert (order[2:], blocks.num_free, waiting_room.num_waiting) == (["c"], 4, 0)


async def test_the_next_goes_on_when_the_first_leaves() -> None:
    blocks = BlockAllocator(4)
    waiting_room = Room(blocks)
    blocks.allocate(3)
    large, small = asyncio.create_task(waiting_room.take(3)), asyncio.create_task(waiting_room.take(1))
    await asyncio.sleep(0)
    large.cancel()
    assert len(await small) == 1
    with pytest.raises(OutOfBlocks, match="the pool has 4"):
        await waiting_room.take(5)


def room(peer: Receiving) -> Room:
    return peer.receiver.rooms[PayloadKind.KV]


async def test_a_grant_that_the_sender_did_not_hear_of_is_given_back(receive: Receive) -> None:
    peer = await receive()
    async with Raw(peer) as raw:
        await raw.open(sender_instance_id="other")
        granted = await raw.open(item_index=1)
        peer.host.known.clear()
        waiting = asyncio.create_task(raw.open(item_index=1))
        await until(lambda: len(peer.host.expected) == 3)
        await raw.leave(item_index=1)
        with refused(grpc.StatusCode.NOT_FOUND, "has ended here"):
            await waiting
        assert granted.lease_id not in {lease.lease_id for lease in peer.receiver.leases}
        assert [lease.sender_instance_id for lease in peer.receiver.leases] == ["other"]
        await raw.leave(sender_instance_id="other")
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "kind"):
            await raw.leave(kind=0)
    peer.assert_nothing_is_held()
