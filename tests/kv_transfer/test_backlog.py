"""What is pushed is taken, once, in any interleaving, and gaps are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_transfer.transports.backlog import Backlog
from tests.kv_transfer.loopback import KV

BLOCKS = tuple(range(8))  # 32 tokens


@given(data=st.data(), chunks=st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_every_pushed_token_is_taken_once(data: st.DataObject, chunks: list[int]) -> None:
    num_tokens = min(32, sum(chunks))
    backlog = Backlog(KV, num_tokens)
    taken: list[tuple[int, int]] = []

    def take(limit: int) -> bool:
        batch = backlog.take(limit)
        if batch is None:
            return False
        assert batch.num_tokens * len(batch.planes) * KV.token_bytes <= max(limit, KV.token_bytes)
        span = range(batch.first_token, batch.first_token + batch.num_tokens)
        taken.extend((plane, token) for plane in batch.planes for token in span)
        return True

    first = 0
    for chunk in chunks:
        count = min(chunk, num_tokens - first)
        if count < 1:
            break
        for layer in range(3):
            backlog.push(first, count, range(2 * layer, 2 * layer + 2), BLOCKS, None)
            for _ in range(data.draw(st.integers(0, 2))):
                take(data.draw(st.integers(1, 2000)))
        first += count
    while take(500):
        pass
    assert not backlog.has_work
    assert backlog.waiting_bytes == 0
    assert sorted(taken) == [(plane, token) for plane in range(6) for token in range(num_tokens)]
    assert backlog.missing(num_tokens) == ""


def test_a_slow_writer_finds_planes_joined() -> None:
    backlog = Backlog(KV, 8)
    for plane in range(6):
        backlog.push(0, 8, range(plane, plane + 1), BLOCKS, None)
    assert backlog.waiting_bytes == 8 * 6 * KV.token_bytes
    batch = backlog.take(1 << 20)
    assert batch is not None
    assert (batch.planes, batch.num_tokens) == (range(6), 8)
    assert backlog.take(1 << 20) is None


def test_slices_are_as_large_as_what_is_moved_of_them() -> None:
    backlog = Backlog(KV, 8, token_bytes=16)  # half of the heads
    backlog.push(0, 8, range(6), BLOCKS, None)
    assert backlog.waiting_bytes == 6 * 8 * 16
    batch = backlog.take(4 * 8 * 16)
    assert batch is not None
    assert (batch.planes, batch.num_tokens) == (range(4), 8)
    backlog.take(8 * 16)
    last = backlog.take(3 * 16)
    assert last is not None
    assert (last.planes, last.num_tokens) == (range(5, 6), 3)


def test_what_is_computed_again_is_written_again_from_its_new_blocks() -> None:
    backlog = Backlog(KV, 8)
    backlog.push(0, 8, range(6), [0, 1], None)
    assert backlog.take(1 << 20) is not None
    backlog.push(0, 4, range(6), [5], None)
    batch = backlog.take(1 << 20)
    assert batch is not None
    assert [run.first_slot for run in batch.source.runs(0, 4)] == [20]
    assert backlog.waiting_bytes == 0


@pytest.mark.parametrize(
    ("first", "count", "planes", "words"),
    [
        (1, 2, range(2), "tokens before 1 were not pushed"),
        (0, 33, range(2), "within the 32 of the lease|do not hold"),
        (0, 0, range(2), "within"),
        (-1, 2, range(2), "within"),
        (0, 4, range(5, 7), "is not within 6 planes"),
        (0, 4, range(0), "is not within 6 planes"),
        (0, 4, range(0, 4, 2), "is not within 6 planes"),
    ],
)
def test_bad_pushes_are_refused(first: int, count: int, planes: range, words: str) -> None:
    backlog = Backlog(KV, 32)
    with pytest.raises(ValueError, match=words):
        backlog.push(first, count, planes, BLOCKS, None)
    assert not backlog.has_work


def test_too_few_source_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="1 source_blocks do not hold tokens up to 5"):
        Backlog(KV, 32).push(0, 5, range(2), [3], None)


def test_missing_names_a_plane() -> None:
    backlog = Backlog(KV, 8)
    backlog.push(0, 8, range(4), BLOCKS, None)
    assert backlog.missing(8) == "2 planes lack tokens, plane 4 has 0 of 8"


def test_the_lease_may_begin_within_a_source_block() -> None:
    backlog = Backlog(KV, 8, skip_tokens=3)
    with pytest.raises(ValueError, match="2 source_blocks do not hold tokens up to 6"):
        backlog.push(0, 6, range(6), [7, 2], None)
    backlog.push(0, 5, range(6), [7, 2], None)
    batch = backlog.take(1 << 20)
    assert batch is not None
    assert list(batch.source.runs(0, 5)) == [(0, 31, 1), (1, 8, 4)]
