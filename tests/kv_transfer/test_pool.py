"""Tokens come out of a pool's blocks as they went in."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kv_transfer.layout import MemoryOrder, PayloadKind, PoolLayout
from kv_transfer.pool import Pool, embedding_layout, kv_layout
from kv_transfer.segment import SegmentOwner
from tests.kv_transfer.loopback import CLUSTER, EMBEDDING, KV


@given(
    order=st.sampled_from(MemoryOrder),
    blocks=st.lists(st.integers(0, 7), min_size=1, max_size=8, unique=True),
    cuts=st.lists(st.integers(1, 32), max_size=4),
    data=st.data(),
)
def test_written_in_pieces_read_as_one(
    order: MemoryOrder, blocks: list[int], cuts: list[int], data: st.DataObject
) -> None:
    pool = Pool(replace(KV, order=order), 8)
    num_tokens = data.draw(st.integers(1, 4 * len(blocks)))
    written = torch.randn(num_tokens, 8)
    bounds = sorted({0, *(cut for cut in cuts if cut < num_tokens), num_tokens})
    for first, end in pairwise(bounds):
        if first % 2:
            pool.write_tokens(3, blocks, first, written[first:end])
        else:
            pool.write_bytes(range(3, 4), blocks, first, written[first:end].numpy().tobytes())
    assert torch.equal(pool.read_tokens(blocks, num_tokens, plane=3), written)
    assert pool.memory.count_nonzero() == written.count_nonzero()


@pytest.mark.parametrize("order", MemoryOrder)
def test_some_heads_are_written_beside_the_others(order: MemoryOrder) -> None:
    pool = Pool(replace(KV, order=order), 8)
    written = torch.randn(9, 2, 4)
    for head in (1, 0):
        data = written[:, head].numpy().tobytes()
        pool.write_bytes(range(2, 3), [6, 1, 3], 0, data, heads=range(head, head + 1))
    assert torch.equal(pool.read_tokens([6, 1, 3], 9, plane=2), written.view(9, 8))


@pytest.mark.parametrize("order", MemoryOrder)
def test_axes_lie_as_the_order_says(order: MemoryOrder) -> None:
    pool = Pool(replace(KV, order=order), 5)
    sizes = {"plane": 6, "block": 5, "token": 4, "head": 2}
    names = order.name.lower().split("_")
    pool.memory.copy_(torch.arange(pool.memory.numel()))
    in_memory = pool.memory.view(*(sizes[name] for name in names), 4)
    canonical = in_memory.permute(*(names.index(name) for name in sizes), 4)
    assert torch.equal(pool.canonical(), canonical)


def test_the_engine_works_on_its_own_order_only() -> None:
    assert Pool(KV, 3).tensor.shape == (6, 3, 4, 8)
    with pytest.raises(ValueError, match="does not work on BLOCK_PLANE_TOKEN_HEAD"):
        _ = Pool(replace(KV, order=MemoryOrder.BLOCK_PLANE_TOKEN_HEAD), 3).tensor


def test_consecutive_blocks_are_read_without_a_copy() -> None:
    pool = Pool(EMBEDDING, 4)
    view = pool.read_tokens([1, 2], 20)
    assert view.data_ptr() == pool.tensor[0, 1].data_ptr()
    assert view.shape == (20, 24)


def test_shared_and_plain_pools_look_the_same() -> None:
    shared = Pool(KV, 5, owner=SegmentOwner(CLUSTER, "pool", 3))
    plain = Pool(KV, 5)
    assert plain.segment is None
    assert shared.segment is not None
    assert shared.segment.record.labels["block_tokens"] == 4
    assert shared.segment.record.epoch == 3
    assert torch.equal(shared.tensor, plain.tensor)
    assert shared.tensor.shape == (6, 5, 4, 8)
    shared.close()


def test_layouts_of_a_model() -> None:
    kv = kv_layout("f", torch.bfloat16, num_layers=2, num_heads=2, head_dim=32, block_tokens=16)
    assert kv == PoolLayout(PayloadKind.KV, "f", "bfloat16", 4, 16, 128, 0, 2, 2)
    assert kv.pool_bytes(3) == 4 * 3 * 16 * 128
    shard = kv_layout(
        "f", torch.bfloat16, num_layers=2, num_heads=8, head_dim=32, block_tokens=16, heads=range(2, 6)
    )
    assert (shard.token_bytes, shard.head_bytes, shard.heads, shard.total_heads) == (256, 64, range(2, 6), 8)
    embedding = embedding_layout("f", torch.float32, width=10)
    assert (embedding.token_bytes, embedding.heads, embedding.total_heads) == (40, range(1), 1)


def test_difference_names_each_field() -> None:
    other = kv_layout("0000", torch.bfloat16, num_layers=2, num_heads=3, head_dim=4, block_tokens=32)
    words = KV.difference(other)
    assert [part.split(":")[0] for part in words.split("; ")] == [
        "model_fingerprint",
        "dtype",
        "num_planes",
        "total_heads",
        "head_bytes",
    ]
    assert KV.difference(KV) == ""


def test_ends_may_differ_in_block_size_order_and_heads() -> None:
    shard = replace(KV, block_tokens=7, token_bytes=16, first_head=1, num_heads=1)
    for order in MemoryOrder:
        assert KV.difference(replace(shard, order=order)) == ""
    assert KV.common_heads(shard) == shard.common_heads(KV) == range(1, 2)
    left = replace(shard, first_head=0)
    assert not left.common_heads(shard)
    assert left.difference(shard) == "heads: 0 to 0 here, 1 to 1 there"


BAD_FIELDS = [
    {"num_planes": 0},
    {"block_tokens": 0},
    {"token_bytes": 0},
    {"num_heads": 0},
    {"total_heads": 0},
    {"first_head": -1},
    {"first_head": 1},
    {"token_bytes": 33},
]


@pytest.mark.parametrize("fields", BAD_FIELDS, ids=str)
def test_layouts_that_make_no_sense_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(fields))}: "):
        replace(KV, **fields)


def test_heads_are_whole_elements() -> None:
    with pytest.raises(ValueError, match="heads of 6 bytes are not whole float32s"):
        Pool(replace(KV, token_bytes=12), 1)


def test_unknown_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match="dtype: torch has no 'float99'"):
        Pool(PoolLayout(PayloadKind.KV, "f", "float99", 1, 1, 4), 1)


@pytest.mark.parametrize("blocks", [[2, 3, 4], [4, 2, 3]])
def test_filled_blocks_read_as_what_was_put_in(blocks: list[int]) -> None:
    pool = Pool(EMBEDDING, 6)
    data = torch.arange(40 * 24, dtype=torch.float32).view(40, 24).to(torch.bfloat16)
    pool.fill(blocks, data)
    assert torch.equal(pool.read_tokens(blocks, 40), data)
    assert not pool.read_tokens([0, 1, 5], 48).any()
