"""Copies and byte ranges move each token's common heads, once, and touch nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_transfer.descriptors import ByteRanges, Bytes, Copy, End, byte_ranges, copies
from kv_transfer.layout import MemoryOrder, PayloadKind, PoolLayout
from kv_transfer.runs import BlockTable

NUM_HEADS = 4
HEAD_BYTES = 3
NUM_PLANES = 3
BASE = PoolLayout(
    PayloadKind.KV, "f", "uint8", NUM_PLANES, 4, NUM_HEADS * HEAD_BYTES, 0, NUM_HEADS, NUM_HEADS
)
OWN = MemoryOrder.PLANE_BLOCK_TOKEN_HEAD
HEADS_FIRST = MemoryOrder.PLANE_BLOCK_HEAD_TOKEN


def layout_of(heads: range, block_tokens: int, order: MemoryOrder) -> PoolLayout:
    sizes = {"first_head": heads.start, "num_heads": len(heads), "token_bytes": len(heads) * HEAD_BYTES}
    return replace(BASE, block_tokens=block_tokens, order=order, **sizes)


@dataclass
class Side:
    """A pool's layout and a sequence's blocks in it."""

    layout: PoolLayout
    blocks: list[int]
    num_blocks: int = 9

    @property
    def table(self) -> BlockTable:
        return BlockTable(self.blocks, self.layout.block_tokens)

    def canonical(self, memory: Bytes) -> Bytes:
        """[planes, blocks, tokens, heads, head_bytes], by reshaping, not by strides."""
        layout = self.layout
        axes = ["plane", "block", "token", "head"]
        sizes = [layout.num_planes, self.num_blocks, layout.block_tokens, layout.num_heads]
        names = layout.order.name.lower().split("_")
        in_memory = memory.reshape(*(sizes[axes.index(name)] for name in names), HEAD_BYTES)
        return in_memory.transpose(*(names.index(axis) for axis in axes), 4)

    def token(self, memory: Bytes, plane: int, token: int, head: int) -> Bytes:
        block, offset = divmod(token, self.layout.block_tokens)
        return self.canonical(memory)[plane, self.blocks[block], offset, head - self.layout.first_head]


@dataclass
class Case:
    source: Side
    target: Side
    planes: range
    tokens: range

    @property
    def heads(self) -> range:
        return self.source.layout.common_heads(self.target.layout)

    @property
    def ends(self) -> tuple[End, End]:
        source, target = (
            End.of(side.layout, side.num_blocks, self.heads) for side in (self.source, self.target)
        )
        return source, target

    def copies(self) -> list[Copy]:
        runs = (side.table.runs(self.tokens.start, len(self.tokens)) for side in (self.source, self.target))
        here, there = self.ends
        return list(copies(here, next(runs), there, next(runs)))

    def ranges(self) -> ByteRanges:
        return byte_ranges(*self.ends, self.planes, self.copies())

    def expected(self, memory: Bytes) -> Bytes:
        target = np.zeros(self.target.layout.pool_bytes(self.target.num_blocks), np.uint8)
        for plane in self.planes:
            for token in self.tokens:
                for head in self.heads:
                    self.target.token(target, plane, token, head)[:] = self.source.token(
                        memory, plane, token, head
                    )
        return target


def source_memory(side: Side) -> Bytes:
    size = side.layout.pool_bytes(side.num_blocks)
    return np.random.default_rng(0).integers(1, 255, size, np.uint8)


@st.composite
def sides(draw: st.DrawFn) -> Side:
    first = draw(st.integers(0, NUM_HEADS - 1))
    heads = range(first, draw(st.integers(first + 1, NUM_HEADS)))
    layout = layout_of(heads, draw(st.integers(1, 5)), draw(st.sampled_from(MemoryOrder)))
    start = draw(st.integers(0, 5))
    consecutive = st.just(list(range(start, 9)))
    scattered = st.lists(st.integers(0, 8), min_size=1, max_size=9, unique=True)
    return Side(layout, draw(consecutive | scattered))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    source = draw(sides())
    target = draw(sides().filter(lambda side: source.layout.common_heads(side.layout)))
    most = min(source.table.num_tokens, target.table.num_tokens)
    first = draw(st.integers(0, most - 1))
    tokens = range(first, draw(st.integers(first + 1, most)))
    first_plane = draw(st.integers(0, NUM_PLANES - 1))
    return Case(source, target, range(first_plane, draw(st.integers(first_plane + 1, NUM_PLANES))), tokens)


@given(case=cases())
def test_copies_move_the_common_heads(case: Case) -> None:
    memory = source_memory(case.source)
    expected = case.expected(memory)
    target = np.zeros_like(expected)
    here, there = case.ends
    moved = 0
    for copy in case.copies():
        data = here.view(memory, case.planes, copy.source)
        np.copyto(there.view(target, case.planes, copy.target), data)
        moved += data.nbytes
    assert np.array_equal(target, expected)
    assert moved == np.count_nonzero(expected)


@given(case=cases())
def test_ranges_move_the_common_heads(case: Case) -> None:
    memory = source_memory(case.source)
    expected = case.expected(memory)
    target = np.zeros_like(expected)
    ranges = case.ranges()
    assert [column.dtype for column in ranges] == [np.int64] * 3
    for here, there, length in zip(*ranges, strict=True):
        target[there : there + length] = memory[here : here + length]
    assert np.array_equal(target, expected)
    assert ranges.lengths.sum() == np.count_nonzero(expected)
    source_ends = ranges.source_offsets + ranges.lengths
    target_ends = ranges.target_offsets + ranges.lengths
    touching = {*zip(source_ends, target_ends, strict=True)} & {*zip(*ranges[:2], strict=True)}
    assert not touching


ALL = range(NUM_HEADS)


def case_of(
    source: tuple[MemoryOrder, int, list[int]], target: tuple[MemoryOrder, int, list[int]], count: int
) -> Case:
    both = (Side(layout_of(ALL, tokens, order), blocks) for order, tokens, blocks in (source, target))
    return Case(next(both), next(both), range(NUM_PLANES), range(count))


COUNTS = [
    # Same heads, tokens before heads: a copy per run, over all planes, whatever the block sizes.
    ((OWN, 4, [2, 3, 4]), (OWN, 4, [5, 6, 7]), 11, 1, 3),
    ((OWN, 3, [1, 2, 3, 4]), (OWN, 4, [5, 6, 7]), 12, 1, 3),
    ((OWN, 4, [2, 3, 7]), (OWN, 4, [5, 6, 7]), 12, 2, 6),
    # Equal pieces at equal distances are one copy.
    ((OWN, 4, [0, 2, 4]), (OWN, 4, [5, 6, 7]), 12, 1, 9),
    ((HEADS_FIRST, 4, [2, 3, 4]), (HEADS_FIRST, 4, [5, 6, 7]), 12, 1, 3),
    ((HEADS_FIRST, 4, [2, 3, 4]), (OWN, 4, [5, 6, 7]), 12, 1, 3 * (12 * NUM_HEADS - 2)),
    ((MemoryOrder.BLOCK_PLANE_TOKEN_HEAD, 4, [2, 3]), (OWN, 8, [5]), 8, 1, 6),
    # Whole blocks whose planes lie in them: one range.
    (
        (MemoryOrder.BLOCK_PLANE_TOKEN_HEAD, 4, [2, 3]),
        (MemoryOrder.BLOCK_PLANE_TOKEN_HEAD, 4, [5, 6]),
        8,
        1,
        1,
    ),
    # A block that is cut short is a copy of its own.
    ((HEADS_FIRST, 4, [2, 3, 4]), (HEADS_FIRST, 4, [5, 6, 7]), 10, 2, 3 * NUM_HEADS),
]


@pytest.mark.parametrize(("source", "target", "count", "num_copies", "num_ranges"), COUNTS)
def test_as_few_as_the_layouts_allow(
    source: tuple[MemoryOrder, int, list[int]],
    target: tuple[MemoryOrder, int, list[int]],
    count: int,
    num_copies: int,
    num_ranges: int,
) -> None:
    case = case_of(source, target, count)
    assert len(case.copies()) == num_copies
    assert len(case.ranges().lengths) == num_ranges


def test_the_whole_pool_is_one_range() -> None:
    blocks = list(range(9))
    for order in MemoryOrder:
        ranges = case_of((order, 4, blocks), (order, 4, blocks), 36).ranges()
        assert [column.tolist() for column in ranges] == [[0], [0], [BASE.pool_bytes(9)]]


def test_memory_that_is_too_short_is_not_written() -> None:
    case = case_of((OWN, 4, [0]), (OWN, 4, [8]), 4)
    [copy] = case.copies()
    with pytest.raises((ValueError, TypeError)):
        case.ends[1].view(np.zeros(BASE.pool_bytes(9) - 1, np.uint8), case.planes, copy.target)


def test_nothing_to_move_is_no_range() -> None:
    case = case_of((OWN, 4, [0]), (OWN, 4, [1]), 4)
    assert [len(column) for column in byte_ranges(*case.ends, case.planes, [])] == [0, 0, 0]
