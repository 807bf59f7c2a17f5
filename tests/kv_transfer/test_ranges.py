"""Byte ranges name every byte of every plane once, at both ends, joined where they can be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kv_transfer.runs import BlockTable, copy_runs
from kv_transfer.transports.ranges import SlotSpan, byte_ranges

BLOCKS = st.lists(st.integers(0, 6), min_size=1, max_size=6, unique=True)


@given(source=BLOCKS, target=BLOCKS, source_tokens=st.integers(1, 4), target_tokens=st.integers(1, 4))
def test_ranges_are_the_bytes_of_the_tokens(
    source: list[int], target: list[int], source_tokens: int, target_tokens: int
) -> None:
    count = min(len(source) * source_tokens, len(target) * target_tokens)
    spans = SlotSpan(1000, 7 * source_tokens, 3), SlotSpan(9000, 7 * target_tokens, 3)
    runs = copy_runs(
        BlockTable(source, source_tokens).runs(0, count), BlockTable(target, target_tokens).runs(0, count)
    )
    ranges = byte_ranges(runs, range(1, 3), *spans)
    pairs = {(s + i, t + i) for s, t, size in zip(*ranges, strict=True) for i in range(size)}

    def address(span: SlotSpan, plane: int, blocks: list[int], tokens: int, token: int) -> int:
        slot = blocks[token // tokens] * tokens + token % tokens
        return span.address + (plane * span.num_slots + slot) * 3

    assert pairs == {
        (
            address(spans[0], plane, source, source_tokens, token) + i,
            address(spans[1], plane, target, target_tokens, token) + i,
        )
        for plane in (1, 2)
        for token in range(count)
        for i in range(3)
    }
    assert ranges.sizes_bytes.sum() == len(pairs)


def test_whole_planes_are_one_range() -> None:
    runs = copy_runs(BlockTable(range(4), 2).runs(0, 8), BlockTable(range(2), 4).runs(0, 8))
    ranges = byte_ranges(runs, range(3), SlotSpan(0, 8, 5), SlotSpan(100, 8, 5))
    assert [each.tolist() for each in ranges] == [[0], [100], [120]]


def test_neighbours_at_one_end_only_stay_apart() -> None:
    runs = copy_runs(BlockTable([0, 1], 2).runs(0, 4), BlockTable([0, 1], 2).runs(0, 4))
    ranges = byte_ranges(runs, range(2), SlotSpan(0, 4, 1), SlotSpan(100, 6, 1))
    assert [each.tolist() for each in ranges] == [[0, 4], [100, 106], [4, 4]]
