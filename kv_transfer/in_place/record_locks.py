"""Locks on a segment's file: on blocks by those who read them, on offers by the owner."""

from __future__ import annotations

import fcntl
import struct
from collections import Counter

from kv_transfer.segment import HEADER_BYTES

# struct flock with 64-bit offsets: type, whence, start, length, process id, which must be 0.
_FLOCK = struct.Struct("@hhqqi4x")


class RecordLocks:
    """Through one open file, to which the locks belong, and not to the process: two of them see each other's.

    | header | blocks … | offers, past the end of the file … |

    A block may be locked several times through the same one; it takes as many calls to unlock it. What is
    locked when a process ends is unlocked by that. Raises OSError where the file system has no such locks.
    """

    def __init__(self, fd: int, block_bytes: int, num_blocks: int) -> None:
        self._fd = fd
        self._block_bytes = block_bytes
        self._first_offer = HEADER_BYTES + num_blocks * block_bytes
        self._read: Counter[int] = Counter()
        self.are_read(range(num_blocks))

    @property
    def num_read(self) -> int:
        """Blocks that are locked through this file."""
        return len(self._read)

    def lock_blocks(self, blocks: range) -> None:
        self._set(fcntl.F_RDLCK, self._bytes_of(blocks))
        self._read.update(blocks)

    def unlock_blocks(self, blocks: range) -> None:
        """Raises ValueError if one of them is not locked."""
        for block in blocks:
            if not self._read[block]:
                raise ValueError(f"block {block} is not locked")
            self._read[block] -= 1
            if not self._read[block]:
                del self._read[block]
                self._set(fcntl.F_UNLCK, self._bytes_of(range(block, block + 1)))

    def unlock_all(self) -> None:
        if self._read:
            every = range(min(self._read), max(self._read) + 1)
            self._read.clear()
            self._set(fcntl.F_UNLCK, self._bytes_of(every))

    def are_read(self, blocks: range) -> bool:
        """Whether somebody else has any of them locked."""
        return self._is_locked(self._bytes_of(blocks), fcntl.F_WRLCK)

    def lock_offer(self, offer_id: int) -> None:
        self._set(fcntl.F_WRLCK, self._byte_of(offer_id))

    def unlock_offer(self, offer_id: int) -> None:
        self._set(fcntl.F_UNLCK, self._byte_of(offer_id))

    def is_offered(self, offer_id: int) -> bool:
        """By somebody else."""
        return self._is_locked(self._byte_of(offer_id), fcntl.F_RDLCK)

    def _bytes_of(self, blocks: range) -> range:
        start = HEADER_BYTES + blocks.start * self._block_bytes
        return range(start, start + len(blocks) * self._block_bytes)

    def _byte_of(self, offer_id: int) -> range:
        place = self._first_offer + offer_id
        return range(place, place + 1)

    def _set(self, kind: int, where: range) -> None:
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, 0, where.start, len(where), 0))

    def _is_locked(self, where: range, against: int) -> bool:
        """Whether a lock of that kind could not be had."""
        wanted = _FLOCK.pack(against, 0, where.start, len(where), 0)
        answer: bytes = fcntl.fcntl(self._fd, fcntl.F_OFD_GETLK, wanted)
        return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
