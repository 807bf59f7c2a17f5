"""Runs name each token's slot, once, in as few pieces as there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_transfer.runs import BlockTable, copy_runs

BLOCKS = st.lists(st.integers(0, 12), min_size=1, max_size=8, unique=True)


@given(blocks=BLOCKS, block_tokens=st.integers(1, 5), data=st.data())
def test_runs_are_the_slots_of_the_tokens(blocks: list[int], block_tokens: int, data: st.DataObject) -> None:
    skip = data.draw(st.integers(0, block_tokens - 1))
    size = len(blocks) * block_tokens - skip
    first = data.draw(st.integers(0, size - 1))
    count = data.draw(st.integers(0, size - first))
    runs = list(BlockTable(blocks, block_tokens, skip).runs(first, count))
    slots = [run.first_slot + i for run in runs for i in range(run.num_tokens)]
    tokens = [run.first_token + i for run in runs for i in range(run.num_tokens)]
    assert tokens == list(range(first, first + count))
    assert slots == [
        blocks[t // block_tokens] * block_tokens + t % block_tokens
        for t in range(first + skip, first + skip + count)
    ]
    ends = [run.first_slot + run.num_tokens for run in runs]
    assert all(run.first_slot != end for run, end in zip(runs[1:], ends, strict=False))


@given(blocks=st.lists(st.integers(0, 60), min_size=40, max_size=50, unique=True))
def test_many_blocks_make_the_same_runs_as_few(blocks: list[int]) -> None:
    starts = [i for i, block in enumerate(blocks) if i == 0 or block != blocks[i - 1] + 1]
    runs = list(BlockTable(blocks, 4).runs(0, 4 * len(blocks)))
    assert [run.first_token for run in runs] == [4 * start for start in starts]
    assert [run.first_slot for run in runs] == [4 * blocks[start] for start in starts]


@given(source=BLOCKS, target=BLOCKS, source_tokens=st.integers(1, 5), target_tokens=st.integers(1, 5))
def test_copies_join_blocks_of_different_sizes(
    source: list[int], target: list[int], source_tokens: int, target_tokens: int
) -> None:
    count = min(len(source) * source_tokens, len(target) * target_tokens)
    copies = copy_runs(
        BlockTable(source, source_tokens).runs(0, count), BlockTable(target, target_tokens).runs(0, count)
    )
    pairs = [(c.source_slot + i, c.target_slot + i) for c in copies for i in range(c.num_tokens)]
    assert pairs == [
        (
            source[t // source_tokens] * source_tokens + t % source_tokens,
            target[t // target_tokens] * target_tokens + t % target_tokens,
        )
        for t in range(count)
    ]


def test_tokens_beyond_the_blocks_are_refused() -> None:
    with pytest.raises(IndexError, match="tokens 3 to 9"):
        list(BlockTable([4, 5], 4).runs(3, 6))
    with pytest.raises(IndexError, match="tokens 3 to 6 are not within the 5"):
        list(BlockTable([4, 5], 4, skip_tokens=3).runs(3, 3))
