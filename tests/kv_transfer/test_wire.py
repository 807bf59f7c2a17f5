"""Layouts survive the wire, and unset fields are named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from elasticmm.v1 import transfer_pb2
from kv_transfer.commits import Arrived, CommitRecord
from kv_transfer.layout import MemoryOrder, PayloadKind, PoolLayout
from kv_transfer.prefixes import PrefixRequest, PushedPrefix
from kv_transfer.transports.base import PeerAddress
from kv_transfer.wire import (
    arrived_from,
    arrived_to,
    commit_from,
    commit_to,
    layout_from,
    layout_to,
    pull_from,
    pull_to,
    pushed_from,
    pushed_to,
)
from tests.kv_transfer.loopback import EMBEDDING, KV

SHARD = replace(KV, first_head=1, num_heads=2, total_heads=4)
LAYOUTS = [KV, EMBEDDING, SHARD, *(replace(SHARD, order=order) for order in MemoryOrder)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_round_trip(layout: PoolLayout) -> None:
    message = transfer_pb2.PoolLayout.FromString(layout_to(layout).SerializeToString())
    assert layout_from(message) == layout


def test_numbers_are_those_of_the_wire() -> None:
    assert {kind.name: kind.value for kind in PayloadKind} == {
        "KV": transfer_pb2.PAYLOAD_KIND_KV,
        "EMBEDDING": transfer_pb2.PAYLOAD_KIND_EMBEDDING,
    }
    numbers = {f"MEMORY_ORDER_{order.name}": order.value for order in MemoryOrder}
    assert numbers | {"MEMORY_ORDER_UNSPECIFIED": 0} == dict(transfer_pb2.MemoryOrder.items())


FIELDS = ["kind", "num_planes", "block_tokens", "token_bytes", "num_heads", "total_heads", "order"]


@pytest.mark.parametrize("field", FIELDS)
def test_an_unset_field_is_named(field: str) -> None:
    message = layout_to(KV)
    message.ClearField(field)
    with pytest.raises(ValueError, match=f"layout.{field}"):
        layout_from(message)


def test_the_first_head_is_zero_where_it_is_unset() -> None:
    message = layout_to(SHARD)
    message.ClearField("first_head")
    unset = layout_from(message)
    message.first_head = 0
    assert unset == layout_from(message) == replace(SHARD, first_head=0)


@pytest.mark.parametrize(
    "record",
    [
        CommitRecord(lease_id=2**63 - 1, num_tokens=1, written_bytes=0),
        CommitRecord(lease_id=1, num_tokens=9, outputs=(3, 0), written_bytes=2**40, checksums=(0, 2**32 - 1)),
    ],
)
def test_commits_survive(record: CommitRecord) -> None:
    message = transfer_pb2.CommitRequest.FromString(commit_to(record).SerializeToString())
    assert commit_from(message) == record
    arrived = Arrived(record.num_tokens, 6, 2)
    assert arrived_from(arrived_to(arrived)) == arrived


@pytest.mark.parametrize("first_token", [0, 48])
def test_pulls_survive(first_token: int) -> None:
    request = PrefixRequest(
        key=("req prefix 3", 2),
        block_keys=(bytes(32), b"k" * 32),
        first_token=first_token,
        block_tokens=16,
        model_fingerprint="f00d",
        asker=PeerAddress("b", "127.0.0.1:9", "host", 2**63 + 1),
        holder_epoch=2**64 - 1,
    )
    message = transfer_pb2.PullPrefixRequest.FromString(pull_to(request).SerializeToString())
    assert pull_from(message) == request


@pytest.mark.parametrize("pushed", [PushedPrefix(0), PushedPrefix(64, "shm")])
def test_what_was_pushed_survives(pushed: PushedPrefix) -> None:
    message = transfer_pb2.PullPrefixResponse.FromString(pushed_to(pushed).SerializeToString())
    assert pushed_from(message) == pushed
