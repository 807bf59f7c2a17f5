"""Two open files of one segment see each other's locks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kv_transfer.in_place.record_locks import RecordLocks


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[tuple[RecordLocks, RecordLocks]]:
    """The owner's and a reader's."""
    path = tmp_path / "segment"
    path.write_bytes(b"")
    fds = os.open(path, os.O_RDWR), os.open(path, os.O_RDONLY)
    yield RecordLocks(fds[0], 64, 8), RecordLocks(fds[1], 64, 8)
    for fd in fds:
        os.close(fd)


def test_the_owner_sees_which_blocks_are_read(ends: tuple[RecordLocks, RecordLocks]) -> None:
    owner, reader = ends
    reader.lock_blocks(range(2, 4))
    assert [owner.are_read(range(block, block + 1)) for block in range(6)] == [0, 0, 1, 1, 0, 0]
    assert owner.are_read(range(0, 8))
    assert not reader.are_read(range(0, 8))
    reader.unlock_blocks(range(2, 4))
    assert not owner.are_read(range(0, 8))


def test_blocks_are_read_until_they_are_unlocked_as_often_as_locked(
    ends: tuple[RecordLocks, RecordLocks],
) -> None:
    owner, reader = ends
    reader.lock_blocks(range(0, 3))
    reader.lock_blocks(range(2, 5))
    reader.unlock_blocks(range(0, 3))
    assert [owner.are_read(range(block, block + 1)) for block in range(6)] == [0, 0, 1, 1, 1, 0]
    with pytest.raises(ValueError, match="block 0 is not locked"):
        reader.unlock_blocks(range(0, 1))
    reader.unlock_all()
    assert (reader.num_read, owner.are_read(range(0, 8))) == (0, False)


def test_an_offer_is_good_while_its_owner_holds_it(ends: tuple[RecordLocks, RecordLocks]) -> None:
    owner, reader = ends
    owner.lock_offer(3)
    assert [reader.is_offered(number) for number in range(5)] == [0, 0, 0, 1, 0]
    assert not owner.are_read(range(0, 8))
    owner.unlock_offer(3)
    assert not reader.is_offered(3)
