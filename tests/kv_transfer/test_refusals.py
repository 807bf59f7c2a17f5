"""What does not fit is refused with a status and the field's name, and nothing is held."""

from __future__ import annotations

from dataclasses import replace

import grpc
import pytest
import torch

from elasticmm.v1 import transfer_pb2
from kv_transfer.errors import TransferError
from kv_transfer.grants import _layout_from
from kv_transfer.layout import PayloadKind
from kv_transfer.pool import Pool
from kv_transfer.wire import layout_to
from tests.kv_transfer.loopback import EMBEDDING, KEY, KV, MakeSender, Receive
from tests.kv_transfer.raw import Raw, refused


def other(**fields: object) -> transfer_pb2.PoolLayout:
    return layout_to(replace(KV, **fields))


BAD_OPENS = [
    ({"receiver_epoch": 8}, "FAILED_PRECONDITION", "receiver_epoch"),
    (
        {"layout": layout_to(replace(KV, model_fingerprint="x"))},
        "FAILED_PRECONDITION",
        "model_fingerprint: f00d",
    ),
    (
        {"layout": layout_to(replace(KV, dtype="float16"))},
        "FAILED_PRECONDITION",
        "dtype: float32 here, float16",
    ),
    ({"layout": other(num_planes=8)}, "FAILED_PRECONDITION", "num_planes: 6 here, 8 there"),
    (
        {"layout": layout_to(replace(KV, token_bytes=64))},
        "FAILED_PRECONDITION",
        "head_bytes: 16 here, 32 there",
    ),
    ({"layout": other(total_heads=3)}, "FAILED_PRECONDITION", "total_heads: 2 here, 3 there"),
    ({"transports": []}, "FAILED_PRECONDITION", "transports"),
    ({"transports": ["shm", "carrier pigeon"]}, "FAILED_PRECONDITION", "carrier pigeon: not to be had here"),
    ({"num_tokens": 65}, "RESOURCE_EXHAUSTED", "num_tokens: 65, the whole pool holds 64"),
    ({"num_tokens": 0}, "INVALID_ARGUMENT", "num_tokens"),
    ({"request_id": ""}, "INVALID_ARGUMENT", "request_id"),
    ({"layout": None}, "INVALID_ARGUMENT", "layout.kind"),
    (
        {"layout": transfer_pb2.PoolLayout(kind=1, num_planes=6, order=1)},
        "INVALID_ARGUMENT",
        "layout.block_tokens",
    ),
]


@pytest.mark.parametrize(("fields", "code", "words"), BAD_OPENS, ids=lambda value: str(value)[:30])
async def test_open(receive: Receive, fields: dict[str, object], code: str, words: str) -> None:
    peer = await receive()
    async with Raw(peer) as raw:
        with refused(grpc.StatusCode[code], words):
            await raw.open(**fields)
    peer.assert_nothing_is_held()
    assert peer.host.expected == []


async def test_every_call_needs_the_token(receive: Receive) -> None:
    peer = await receive()
    async with Raw(peer, "wrong") as raw:
        for call in (raw.open(), raw.write(), raw.commit(1, 1), raw.abort(1)):
            with refused(grpc.StatusCode.UNAUTHENTICATED, "token"):
                await call


BAD_WRITES = [
    ({"plane": 6}, "plane: 6, num_planes: 1 are not within 6"),
    ({"plane": 3, "num_planes": 4}, "plane: 3, num_planes: 4 are not within 6"),
    ({"data": b"x" * 33}, "data: 33 bytes are not whole tokens of 32"),
    ({"num_planes": 3}, "data: 32 bytes are not whole tokens of 96"),
    ({"first_token": 1}, "first_token: 1 to 2 does not fit, plane 0 has 0 of 8"),
    ({"data": b"x" * 32 * 9}, "first_token: 0 to 9 does not fit"),
]


@pytest.mark.parametrize(("fields", "words"), BAD_WRITES, ids=lambda value: str(value)[:30])
async def test_write(receive: Receive, fields: dict[str, object], words: str) -> None:
    peer = await receive()
    async with Raw(peer) as raw:
        lease_id = (await raw.open()).lease_id
        good = {"lease_id": lease_id, "data": b"x" * 32}
        with refused(grpc.StatusCode.INVALID_ARGUMENT, words):
            await raw.write(transfer_pb2.WriteRequest(**(good | fields)))
        await raw.abort(lease_id)
    peer.assert_nothing_is_held()


async def test_a_broken_write_call_ends_its_lease(receive: Receive) -> None:
    peer = await receive()
    async with Raw(peer) as raw:
        lease_id = (await raw.open()).lease_id
        good = transfer_pb2.WriteRequest(lease_id=lease_id, data=b"x" * 32)
        bad = transfer_pb2.WriteRequest(lease_id=lease_id, plane=9, data=b"x" * 32)
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "plane"):
            await raw.write(good, bad)
        peer.assert_nothing_is_held()
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "stream broke off"):
            await raw.write(good)


@pytest.mark.parametrize(
    ("num_tokens", "words"), [(1, "6 planes have fewer"), (0, "within 1 to 8"), (9, "to 8")]
)
async def test_commit_of_what_did_not_come(receive: Receive, num_tokens: int, words: str) -> None:
    peer = await receive()
    async with Raw(peer) as raw:
        lease_id = (await raw.open()).lease_id
        with refused(grpc.StatusCode.INVALID_ARGUMENT, words):
            await raw.commit(lease_id, num_tokens)
    peer.assert_nothing_is_held()
    assert peer.host.kv == []


async def test_planes_of_one_message_must_all_go_on_where_they_end(receive: Receive) -> None:
    peer = await receive()
    async with Raw(peer) as raw:
        lease_id = (await raw.open()).lease_id
        good = transfer_pb2.WriteRequest(lease_id=lease_id, plane=1, data=b"x" * 32)
        gap = transfer_pb2.WriteRequest(lease_id=lease_id, num_planes=3, first_token=1, data=b"x" * 96)
        with refused(
            grpc.StatusCode.INVALID_ARGUMENT, "first_token: 1 to 2 does not fit, plane 0 has 0 of 8"
        ):
            await raw.write(good, gap)
    peer.assert_nothing_is_held()


async def test_commit_twice_delivers_once(receive: Receive) -> None:
    peer = await receive()
    async with Raw(peer) as raw:
        lease_id = (await raw.open(num_tokens=1)).lease_id
        await raw.write(
            *(transfer_pb2.WriteRequest(lease_id=lease_id, plane=plane, data=b"x" * 32) for plane in range(6))
        )
        await raw.commit(lease_id, 1)
        await raw.commit(lease_id, 1)
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "is committed"):
            await raw.write(transfer_pb2.WriteRequest(lease_id=lease_id, data=b"x" * 32))
    assert len(peer.host.kv) == 1


async def test_unknown_leases(receive: Receive) -> None:
    peer = await receive()
    async with Raw(peer) as raw:
        await raw.abort(5)
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "lease 5 is not known"):
            await raw.commit(5, 1)
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "lease 5 is not known"):
            await raw.write(transfer_pb2.WriteRequest(lease_id=5))


async def test_opening_the_same_again_ends_the_first(receive: Receive) -> None:
    peer = await receive()
    async with Raw(peer) as raw:
        first, second = await raw.open(), await raw.open()
        assert [lease.lease_id for lease in peer.receiver.leases] == [second.lease_id]
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "opened the same transfer again"):
            await raw.commit(first.lease_id, 1)
        await raw.abort(second.lease_id)
    peer.assert_nothing_is_held()


async def test_ends_without_a_common_head(receive: Receive) -> None:
    left, right = (replace(KV, token_bytes=16, first_head=head, num_heads=1) for head in range(2))
    peer = await receive(kv=left)
    async with Raw(peer) as raw:
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "heads: 0 to 0 here, 1 to 1 there"):
            await raw.open(layout=layout_to(right))
    peer.assert_nothing_is_held()


async def test_a_kind_that_is_not_held_here(receive: Receive) -> None:
    peer = await receive()
    peer.receiver.pools.pop(PayloadKind.EMBEDDING).close()
    async with Raw(peer) as raw:
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "takes no EMBEDDING"):
            await raw.open(layout=layout_to(EMBEDDING))


async def test_a_segment_that_is_not_as_granted_is_not_written(
    receive: Receive, sender_with: MakeSender
) -> None:
    peer = await receive()
    peer.kv.layout = replace(KV, block_tokens=8)
    with pytest.raises(TransferError, match="laid out otherwise") as caught:
        await sender_with("shm").open(peer.address, KEY, PayloadKind.KV, 0, 4, Pool(KV, 1))
    assert caught.value.cause == "ATTACH"
    peer.assert_nothing_is_held()


def test_a_grant_without_a_layout_is_refused() -> None:
    with pytest.raises(TransferError, match="layout.kind") as caught:
        _layout_from(transfer_pb2.OpenResponse().layout)
    assert caught.value.cause == "PROTOCOL"


async def test_sender_is_told_what_differs(receive: Receive, sender_with: MakeSender) -> None:
    peer = await receive()
    sender = sender_with()
    with pytest.raises(TransferError, match="dtype: bfloat16 here, float32 there") as caught:
        await sender.send_embedding(peer.address, KEY, 0, torch.zeros(3, 24))
    assert caught.value.cause == "FAILED_PRECONDITION"
    assert sender.stats.of("receiver", "").failures == {"FAILED_PRECONDITION": 1}


async def test_kind_and_source_agree(receive: Receive, sender_with: MakeSender) -> None:
    peer = await receive()
    with pytest.raises(ValueError, match="the source holds EMBEDDING"):
        await sender_with().open(peer.address, KEY, PayloadKind.KV, 0, 1, Pool(EMBEDDING, 1))


async def test_an_unknown_transport_is_refused(sender_with: MakeSender) -> None:
    with pytest.raises(
        ValueError, match="transports: pigeon; known are cuda_ipc, shm, collective, nixl, grpc"
    ):
        sender_with("pigeon")
