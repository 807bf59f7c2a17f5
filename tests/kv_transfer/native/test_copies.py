"""Lists of copies between two ends: large ones past the caches, and without a compiler by numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.compiled import NativeError
from kv_transfer.descriptors import Bytes, Copy, End, Part, copies
from kv_transfer.layout import MemoryOrder, PoolLayout
from kv_transfer.native import copies as native
from kv_transfer.native.copies import EndCopies
from kv_transfer.pool import kv_layout
from kv_transfer.runs import BlockTable

NUM_BLOCKS = 12


def layout_of(order: MemoryOrder, block_tokens: int, head_dim: int = 64) -> PoolLayout:
    return kv_layout(
        "f00d",
        torch.float16,
        num_layers=2,
        num_heads=4,
        head_dim=head_dim,
        block_tokens=block_tokens,
        order=order,
    )


def ends_and_moves(
    layouts: tuple[PoolLayout, PoolLayout], heads: range, blocks: tuple[list[int], list[int]], count: int
) -> tuple[End, End, list[Copy]]:
    here, there = (End.of(layout, NUM_BLOCKS, heads) for layout in layouts)
    tables = [BlockTable(ids, each.block_tokens) for ids, each in zip(blocks, layouts, strict=True)]
    source, target = (table.runs(1, count - 1) for table in tables)
    return here, there, list(copies(here, source, there, target))


def filled(layout: PoolLayout, seed: int, offset: int = 0) -> Bytes:
    size_bytes = layout.pool_bytes(NUM_BLOCKS)
    return np.random.default_rng(seed).integers(0, 256, size_bytes + offset, np.uint8)[offset:]


@settings(deadline=None, max_examples=60)
@given(
    orders=st.tuples(st.sampled_from(MemoryOrder), st.sampled_from(MemoryOrder)),
    block_tokens=st.tuples(st.sampled_from([8, 16]), st.sampled_from([8, 16, 32])),
    head_dim=st.sampled_from([4, 64, 260, 300, 2500]),
    heads=st.sampled_from([range(4), range(1, 3), range(3, 4)]),
    blocks=st.tuples(st.permutations(range(NUM_BLOCKS)), st.permutations(range(NUM_BLOCKS))),
    planes=st.sampled_from([range(4), range(1, 3), range(2, 3)]),
    offsets=st.tuples(st.sampled_from([0, 1, 64]), st.sampled_from([0, 7, 64])),
    is_streamed=st.booleans(),
)
def test_bytes_arrive_as_numpy_copies_them_and_nothing_beside_them(
    orders: tuple[MemoryOrder, MemoryOrder],
    block_tokens: tuple[int, int],
    head_dim: int,
    heads: range,
    blocks: tuple[list[int], list[int]],
    planes: range,
    offsets: tuple[int, int],
    is_streamed: bool,
) -> None:
    first, second = (layout_of(*each, head_dim) for each in zip(orders, block_tokens, strict=True))
    here, there, moves = ends_and_moves((first, second), heads, blocks, 8 * NUM_BLOCKS - 3)
    source, target = filled(first, 1, offsets[0]), filled(second, 2, offsets[1])
    expected = target.copy()
    for move in moves:
        there.view(expected, planes, move.target)[...] = here.view(source, planes, move.source)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "STREAM_BYTES", 0 if is_streamed else 1 << 40)
        patch.setattr(np, "copyto", None)  # all goes the native way
        size_bytes = EndCopies(here, source, there, target).run(planes, moves)
    assert np.array_equal(target, expected)
    assert size_bytes == (8 * NUM_BLOCKS - 4) * here.token_bytes * len(planes)


def is_native_or_not(monkeypatch: pytest.MonkeyPatch, *, is_native: bool) -> None:
    if not is_native:
        monkeypatch.setattr(native, "load", lambda: None)


@pytest.mark.parametrize("is_native", [True, False])
def test_planes_may_go_to_others(is_native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    is_native_or_not(monkeypatch, is_native=is_native)
    layout = layout_of(MemoryOrder.PLANE_BLOCK_TOKEN_HEAD, 8)
    end = End.of(layout, NUM_BLOCKS, layout.heads)
    source, target = filled(layout, 1), np.zeros(layout.pool_bytes(NUM_BLOCKS), np.uint8)
    part = Part(0, 0, 1, 8 * NUM_BLOCKS)
    EndCopies(end, source, end, target).run(range(1, 3), [Copy(part, part)], to_plane=2)
    planes = source.reshape(4, -1)
    assert np.array_equal(target.reshape(4, -1)[2:], planes[1:3])
    assert not target.reshape(4, -1)[:2].any()


@pytest.mark.parametrize("is_native", [True, False])
@pytest.mark.parametrize("change", [{"offset": -1}, {"offset": 1}, {"num_tokens": 97}, {"num_pieces": 2}])
@pytest.mark.parametrize("at_source", [True, False])
def test_what_lies_outside_is_not_touched(
    is_native: bool, change: dict[str, int], at_source: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_native_or_not(monkeypatch, is_native=is_native)
    layout = layout_of(MemoryOrder.PLANE_BLOCK_TOKEN_HEAD, 8)
    end = End.of(layout, NUM_BLOCKS, layout.heads)
    whole = Part(0, layout.token_bytes, 1, 96)
    fields = {name: whole._asdict()[name] for name in ("num_tokens", "num_pieces")} | change
    sizes = {name: fields[name] for name in ("num_tokens", "num_pieces")}  # are the same at both ends
    inside, outside = whole._replace(**sizes, step=0), whole._replace(**fields)
    move = Copy(outside, inside) if at_source else Copy(inside, outside)
    memories = filled(layout, 1), np.zeros(layout.pool_bytes(NUM_BLOCKS), np.uint8)
    with pytest.raises((ValueError, TypeError)):
        EndCopies(end, memories[0], end, memories[1]).run(range(4), [move])
    assert not memories[1].any()


def test_all_or_nothing() -> None:
    layout = layout_of(MemoryOrder.PLANE_BLOCK_TOKEN_HEAD, 8)
    end = End.of(layout, NUM_BLOCKS, layout.heads)
    target = np.zeros(layout.pool_bytes(NUM_BLOCKS), np.uint8)
    good, bad = Part(0, 0, 1, 8), Part(layout.pool_bytes(NUM_BLOCKS), 0, 1, 8)
    with pytest.raises(ValueError, match="not within the memory"):
        EndCopies(end, filled(layout, 1), end, target).run(range(4), [Copy(good, good), Copy(good, bad)])
    assert not target.any()


def test_a_machine_without_a_compiler_copies_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise NativeError("no compiler today")

    monkeypatch.setattr(native, "ensure_built", refuse)
    native.load.cache_clear()
    layout = layout_of(MemoryOrder.BLOCK_PLANE_HEAD_TOKEN, 8)
    blocks = list(range(NUM_BLOCKS))
    here, there, moves = ends_and_moves(
        (layout, replace(layout, block_tokens=16)), range(4), (blocks, blocks), 90
    )
    source, target = filled(layout, 1), np.zeros(2 * layout.pool_bytes(NUM_BLOCKS), np.uint8)
    try:
        assert EndCopies(here, source, there, target).run(range(4), moves) == 89 * 4 * layout.token_bytes
    finally:
        native.load.cache_clear()
    assert "no compiler today" in caplog.text
    for move in moves:
        arrived = there.view(target, range(4), move.target)
        assert np.array_equal(arrived, here.view(source, range(4), move.source))
