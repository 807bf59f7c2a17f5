"""Tokens come out of a pool's blocks as they went in."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kv_transfer.layout import PayloadKind, PoolLayout
from kv_transfer.pool import Pool, embedding_layout, kv_layout
from kv_transfer.segment import SegmentOwner
from tests.kv_transfer.loopback import CLUSTER, EMBEDDING, KV


@given(
    blocks=st.lists(st.integers(0, 7), min_size=1, max_size=8, unique=True),
    cuts=st.lists(st.integers(1, 32), max_size=4),
    data=st.data(),
)
def test_written_in_pieces_read_as_one(blocks: list[int], cuts: list[int], data: st.DataObject) -> None:
    pool = Pool(KV, 8)
    num_tokens = data.draw(st.integers(1, 4 * len(blocks)))
    written = torch.randn(num_tokens, 8)
    bounds = sorted({0, *(cut for cut in cuts if cut < num_tokens), num_tokens})
    for first, end in pairwise(bounds):
        if first % 2:
            pool.write_tokens(3, blocks, first, written[first:end])
        else:
            pool.write_bytes(3, blocks, first, written[first:end].numpy().tobytes())
    assert torch.equal(pool.read_tokens(blocks, num_tokens, plane=3), written)
    assert pool.tensor.count_nonzero() == written.count_nonzero()


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
    kv = kv_layout("f", torch.bfloat16, num_layers=2, token_elements=64, block_tokens=16)
    assert kv == PoolLayout(PayloadKind.KV, "f", "bfloat16", 4, 16, 128)
    assert kv.pool_bytes(3) == 4 * 3 * 16 * 128
    assert embedding_layout("f", torch.float32, width=10).token_bytes == 40


def test_difference_names_each_field() -> None:
    other = kv_layout("0000", torch.bfloat16, num_layers=2, token_elements=8, block_tokens=32)
    words = KV.difference(other)
    assert [part.split(":")[0] for part in words.split("; ")] == [
        "model_fingerprint",
        "dtype",
        "num_planes",
        "token_bytes",
    ]
    assert KV.difference(KV) == ""


@pytest.mark.parametrize("field", ["num_planes", "block_tokens", "token_bytes"])
def test_empty_layouts_are_refused(field: str) -> None:
    sizes = {"num_planes": 1, "block_tokens": 1, "token_bytes": 1} | {field: 0}
    with pytest.raises(ValueError, match=field):
        PoolLayout(PayloadKind.KV, "f", "float32", **sizes)


def test_unknown_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match="dtype: torch has no 'float99'"):
        Pool(PoolLayout(PayloadKind.KV, "f", "float99", 1, 1, 4), 1)
