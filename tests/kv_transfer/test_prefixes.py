"""KV of a prefix is asked for, and pushed by who has it: exactly, bounded, and leaving nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import grpc
import pytest
import torch

from core.access import token_metadata
from kv_transfer.errors import TransferError
from kv_transfer.layout import PayloadKind
from kv_transfer.pool import Pool
from kv_transfer.prefixes import PushedPrefix
from kv_transfer.wire import layout_to, pull_to
from tests.kv_transfer.loopback import EACH, EMBEDDING, KEY, KV, TOKEN, MakeSender, Receive, until
from tests.kv_transfer.prefixes import PULL, AskingHost, HoldingHost, Pair, elsewhere
from tests.kv_transfer.raw import Raw, refused

BLOCKS = [3, 9, 10, 11, 0, 7]  # 30 tokens of the source
ENDS = [12, 16, 20, 24]  # of the asker's blocks, which has the first 8 tokens
MakePair = Callable[..., Awaitable[Pair]]


@pytest.fixture
async def make_pair(receive: Receive, sender_with: MakeSender, source: Pool) -> MakePair:
    async def make(transport: str = "grpc", num_tokens: int = 30, **options: object) -> Pair:
        holder = await receive(instance_id="holder", epoch=3)
        asker = await receive(instance_id="asker", epoch=9, **options)
        holding = HoldingHost(sender_with(transport, instance_id="holder"), source, BLOCKS, num_tokens)
        asking = AskingHost()
        holder.receiver.serve_prefixes(holding)
        asker.receiver.serve_prefixes(asking)
        return Pair(holder, holding, asker, asking, sender_with(transport, instance_id="asker"))

    return make


def assert_came(pair: Pair, source: Pool, first: int, count: int) -> None:
    """Tokens of the source's sequence from `first` on, in blocks of the asker."""
    [(key, blocks, num_tokens)] = pair.asking.came
    assert (key, num_tokens, len(blocks)) == (PULL, count, pair.asker.kv.blocks_for(count))
    for plane in range(6):
        expected = source.read_tokens(BLOCKS, first + count, plane=plane)[first:]
        assert torch.equal(pair.asker.kv.read_tokens(blocks, count, plane=plane), expected)


@pytest.mark.parametrize("transport", EACH)
@pytest.mark.parametrize("ends", [[4, 8], [8, 12], ENDS], ids=str)
async def test_bytes_come_exactly(make_pair: MakePair, source: Pool, transport: str, ends: list[int]) -> None:
    """Also where the first wanted token is within a block of the holder."""
    pair = await make_pair(transport, checksums=True)
    count = 4 * len(ends)
    assert await pair.pull(ends) == PushedPrefix(count, transport)
    assert pair.asking.expected == [(PULL, count)]
    assert_came(pair, source, ends[0] - 4, count)
    assert pair.asker.host.kv == pair.asker.host.expected == []
    pair.release_what_came()
    pair.assert_nothing_is_held()


async def test_what_is_left_of_it_is_pushed(make_pair: MakePair, source: Pool) -> None:
    pair = await make_pair(num_tokens=19)
    assert await pair.pull(ENDS) == PushedPrefix(8, "grpc")
    assert_came(pair, source, 8, 8)


@pytest.mark.parametrize("transport", EACH)
async def test_fewer_tokens_than_opened_for(make_pair: MakePair, source: Pool, transport: str) -> None:
    pair = await make_pair(transport)
    pair.holding.leaves_out = 8
    assert await pair.pull(ENDS) == PushedPrefix(8, transport)
    assert pair.asking.expected == [(PULL, 16)]
    assert_came(pair, source, 8, 8)
    pair.release_what_came()
    pair.assert_nothing_is_held()


async def test_nothing_is_there_any_more(make_pair: MakePair) -> None:
    pair = await make_pair(num_tokens=8)
    assert await pair.pull(ENDS) == PushedPrefix(0)
    assert pair.asking.expected == []
    pair.assert_nothing_is_held()


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"holder_epoch": 4}, "holder_epoch: 4"), ({"model_fingerprint": "x"}, "model_fingerprint: f00d here")],
)
async def test_another_life_or_model_is_refused(
    make_pair: MakePair, fields: dict[str, object], words: str
) -> None:
    pair = await make_pair()
    with pytest.raises(TransferError, match=words) as caught:
        await pair.pull(ENDS, **fields)
    assert caught.value.cause == "FAILED_PRECONDITION"
    assert pair.holding.num_pushes == 0
    pair.assert_nothing_is_held()


@pytest.mark.parametrize("field", ["request_id", "keys", "block_tokens", "endpoint"])
async def test_a_field_that_is_missing_is_named(make_pair: MakePair, field: str) -> None:
    pair = await make_pair()
    message = pull_to(pair.request(ENDS))
    message.ClearField(field)
    async with Raw(pair.holder) as raw:
        with refused(grpc.StatusCode.INVALID_ARGUMENT, field):
            await raw.stub.PullPrefix(message, metadata=raw.metadata)


async def test_keys_that_are_not_whole(make_pair: MakePair) -> None:
    pair = await make_pair()
    message = pull_to(pair.request(ENDS))
    message.keys += b"x"
    async with Raw(pair.holder) as raw:
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "keys: 129 bytes"):
            await raw.stub.PullPrefix(message, metadata=raw.metadata)


async def test_a_stranger_pulls_nothing(make_pair: MakePair) -> None:
    pair = await make_pair()
    async with Raw(pair.holder) as raw:
        with refused(grpc.StatusCode.UNAUTHENTICATED, "token"):
            await raw.stub.PullPrefix(pull_to(pair.request(ENDS)), metadata=token_metadata(TOKEN + "x"))
    assert pair.holding.num_pushes == 0


async def test_an_instance_that_keeps_none(make_pair: MakePair, receive: Receive) -> None:
    pair, plain = await make_pair(), await receive()
    with pytest.raises(TransferError, match="keeps no prefixes") as caught:
        await pair.caller.pull_prefix(plain.address, pair.request(ENDS, holder_epoch=7), 30.0)
    assert caught.value.cause == "FAILED_PRECONDITION"
    with pytest.raises(TransferError, match="keeps no prefixes"):
        await pair.pull(ENDS, asker=plain.address)
    plain.assert_nothing_is_held()
    pair.assert_nothing_is_held()


async def test_an_embedding_is_no_prefix(make_pair: MakePair) -> None:
    pair = await make_pair()
    async with Raw(pair.asker) as raw:
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "is_prefix: is of KV"):
            await raw.open(layout=layout_to(EMBEDDING), is_prefix=True, receiver_epoch=9)


async def test_shards_bring_the_same_kind_of_kv(make_pair: MakePair) -> None:
    """KV to decode on does not get into blocks of a prefix."""
    pair = await make_pair()
    pair.asker.host.known.add(PULL)
    left, right = (layout_to(replace(KV, token_bytes=16, first_head=head, num_heads=1)) for head in range(2))
    asked = {"request_id": PULL[0], "attempt": PULL[1], "receiver_epoch": 9}
    async with Raw(pair.asker) as raw:
        lease = await raw.open(layout=left, is_prefix=True, **asked)
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "is_prefix: False, other parts of the item have True"):
            await raw.open(layout=right, **asked)
        await raw.abort(lease.lease_id)
    pair.assert_nothing_is_held()


@pytest.mark.parametrize("transport", EACH)
async def test_a_push_that_nobody_asked_for(make_pair: MakePair, transport: str) -> None:
    pair = await make_pair(transport)
    pair.asking.known.clear()
    with pytest.raises(TransferError, match="nobody pulls") as caught:
        await pair.pull(ENDS)
    assert caught.value.cause == "ABORTED"
    pair.assert_nothing_is_held()


@pytest.mark.parametrize("transport", EACH)
async def test_the_asker_wants_it_no_more_when_it_came(make_pair: MakePair, transport: str) -> None:
    pair = await make_pair(transport)
    pair.asking.refuses = True
    with pytest.raises(TransferError, match="nobody waits any more"):
        await pair.pull(ENDS)
    pair.assert_nothing_is_held()


async def test_an_asker_that_cannot_be_reached(make_pair: MakePair) -> None:
    pair = await make_pair()
    with pytest.raises(TransferError, match="UNAVAILABLE") as caught:
        await pair.pull(ENDS, asker=elsewhere(pair.asker.address))
    assert caught.value.cause == "ABORTED"
    pair.assert_nothing_is_held()


async def test_an_asker_in_another_life(make_pair: MakePair) -> None:
    pair = await make_pair()
    with pytest.raises(TransferError, match="receiver_epoch: 8 is not this life"):
        await pair.pull(ENDS, asker=replace(pair.asker.address, epoch=8))
    pair.assert_nothing_is_held()


async def test_the_deadline_passes_while_the_asker_has_no_room(make_pair: MakePair) -> None:
    pair = await make_pair()
    held = pair.asker.kv.blocks.allocate(16)
    with pytest.raises(TransferError) as caught:
        await pair.pull(ENDS, timeout_s=0.05)
    assert caught.value.cause == "DEADLINE_EXCEEDED"
    await until(lambda: not pair.holding.num_pinned and not pair.holding.sender.stats.in_flight)
    await until(lambda: not pair.asker.receiver.rooms[PayloadKind.KV].num_waiting)
    pair.asker.kv.blocks.release(held)
    pair.assert_nothing_is_held()


async def test_kv_to_decode_on_goes_before_a_prefix(make_pair: MakePair, source: Pool) -> None:
    pair = await make_pair()
    pair.asker.host.known.add(KEY)
    held = pair.asker.kv.blocks.allocate(14)
    pulling = pair.pulling(ENDS)
    await until(lambda: pair.asker.receiver.rooms[PayloadKind.KV].num_waiting)
    outgoing = await pair.holding.sender.open(pair.asker.address, KEY, PayloadKind.KV, 0, 8, source)
    await outgoing.abort("that was all")
    pair.asker.kv.blocks.release(held)
    assert (await pulling).num_tokens == 16
    pair.release_what_came()
    pair.assert_nothing_is_held()


@pytest.mark.parametrize("transport", EACH)
async def test_an_asker_that_leaves_ends_the_push(
    make_pair: MakePair, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All was pushed, and its commit does not come."""
    pair = await make_pair(transport)
    is_held = asyncio.Event()

    async def never(*_: object) -> None:
        is_held.set()
        await asyncio.Event().wait()

    monkeypatch.setattr("kv_transfer.outgoing.Outgoing.commit", never)
    pulling = pair.pulling(ENDS)
    await is_held.wait()
    assert pair.asker.num_open == 1
    assert pair.holding.num_pinned == 1
    pulling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pulling
    await until(lambda: not pair.holding.num_pinned and not list(pair.asker.receiver.leases))
    pair.assert_nothing_is_held()


@pytest.mark.parametrize("transport", EACH)
async def test_a_pull_that_ends_at_the_asker_ends_the_lease(make_pair: MakePair, transport: str) -> None:
    pair = await make_pair(transport)
    held = pair.asker.kv.blocks.allocate(16)
    pulling = pair.pulling(ENDS)
    await until(lambda: pair.asker.receiver.rooms[PayloadKind.KV].num_waiting)
    pair.asker.receiver.release_request(PULL)
    with pytest.raises(TransferError, match="has ended here"):
        await pulling
    pair.asker.kv.blocks.release(held)
    pair.assert_nothing_is_held()
