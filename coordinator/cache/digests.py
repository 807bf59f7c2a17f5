"""A hash table from 32-byte digests to small numbers, in flat arrays: 40 bytes a slot, many keys at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DIGEST_BYTES = 32
MISSING = -1
_WORDS = DIGEST_BYTES // 8
_BUCKET_SLOTS = 8
_MOST_LOAD = 0.8
_MOVED_AT_ONCE = 1 << 16  # keys, when the table grows

Keys = NDArray[np.uint64]  # [n, 4]
Slots = NDArray[np.int64]  # [n]
Values = NDArray[np.int32]  # [n]
Tags = NDArray[np.uint32]


def as_keys(digests: Sequence[bytes]) -> Keys:
    """The words of n digests [n, 4]. Raises ValueError for one of another length."""
    if not set(map(len, digests)) <= {DIGEST_BYTES}:
        raise ValueError(f"digests: should have {DIGEST_BYTES} bytes")
    return np.frombuffer(b"".join(digests), np.uint64).reshape(-1, _WORDS)


class DigestTable:
    """A key lies in one of two buckets of eight slots, the emptier when it came; both follow from words of
    the digest itself. What found both full lies in a dict beside them. Removal leaves nothing behind.

    A slot's tag, 32 bits of its key, only says where to look: keys are compared in full. Values are 1 or
    more; 0 means that a key is not there.
    """

    def __init__(self, num_keys: int = 1024) -> None:
        self._beside: dict[bytes, int] = {}
        self.num_moves = 0  # times all keys went to other slots
        self._allocate(num_keys)

    def __len__(self) -> int:
        return self._num_in_slots + len(self._beside)

    @property
    def num_slots(self) -> int:
        return len(self._values)

    @property
    def size_bytes(self) -> int:
        return self._keys.nbytes + self._tags.nbytes + self._values.nbytes

    def reserve(self, num_keys: int) -> None:
        """Makes room for so many in all; what is there moves if it takes a larger table."""
        if num_keys <= self.num_slots * _MOST_LOAD:
            return
        keys, values, beside = self._keys, self._values, self._beside
        self._allocate(num_keys)
        self.num_moves += 1
        for first in range(0, len(values), _MOVED_AT_ONCE):
            part = slice(first, first + _MOVED_AT_ONCE)
            is_used = values[part] > 0
            self._add(keys[part][is_used], values[part][is_used])
        if beside:
            self._add(as_keys(list(beside)), np.fromiter(beside.values(), np.int32))

    def values(self, keys: Keys) -> Values:
        """[n], 0 where a key is not there."""
        slots = self._find(keys)
        found = self._values[slots]
        is_missing = slots == MISSING
        found[is_missing] = 0
        for at in np.flatnonzero(is_missing) if self._beside else ():
            found[at] = self._beside.get(keys[at].tobytes(), 0)
        return found

    def value(self, digest: bytes) -> int:
        """As `values` of one key, without arrays, which would be most of the cost."""
        assert len(digest) == DIGEST_BYTES
        for word in (1, 2):
            number = int.from_bytes(digest[8 * word : 8 * word + 8], sys.byteorder)
            first = number % self._num_buckets * _BUCKET_SLOTS
            keys = self._keys[first : first + _BUCKET_SLOTS].tobytes()
            for place, value in enumerate(self._values[first : first + _BUCKET_SLOTS].tolist()):
                if value and keys.startswith(digest, place * DIGEST_BYTES):
                    return int(value)
        return self._beside.get(digest, 0)

    def put(self, keys: Keys, values: Values) -> None:
        """Sets the values of keys that all differ; 0 removes a key."""
        if len(self) + len(keys) > self.num_slots * _MOST_LOAD:
            self.reserve(2 * (len(self) + len(keys)))
        slots = self._find(keys)
        is_new = slots == MISSING
        self._set(slots[~is_new], values[~is_new])
        for at in np.flatnonzero(is_new) if self._beside else ():
            self._beside.pop(keys[at].tobytes(), None)
        is_new &= values > 0
        self._add(keys[is_new], values[is_new])

    def remap(self, first_slot: int, num_slots: int, new_values: Values) -> None:
        """Lets `new_values[v]` take the place of each value v > 0 in so many slots, and of all beside them
        where the first slot is 0.
        """
        values = self._values[first_slot : first_slot + num_slots]
        used = np.flatnonzero(values)
        self._set(first_slot + used, new_values[values[used]])
        if first_slot == 0 and self._beside:
            moved = {key: int(new_values[value]) for key, value in self._beside.items()}
            self._beside = {key: value for key, value in moved.items() if value}

    def used_values(self, num_values: int) -> NDArray[np.bool_]:
        """[num_values], which of the numbers 0.. some key has."""
        is_used = np.bincount(self._values, minlength=num_values) > 0
        is_used[list(self._beside.values())] = True
        return is_used

    def _allocate(self, num_keys: int) -> None:
        self._num_buckets = int(num_keys / _MOST_LOAD) // _BUCKET_SLOTS + 1
        num_slots = self._num_buckets * _BUCKET_SLOTS
        self._keys = np.zeros((num_slots, _WORDS), np.uint64)
        self._tags = np.zeros((self._num_buckets, _BUCKET_SLOTS), np.uint32)  # 0: the slot is free
        self._values = np.zeros(num_slots, np.int32)
        self._num_in_slots = 0
        self._beside = {}

    def _bucket(self, keys: Keys, choice: int) -> Slots:
        return (keys[:, 1 + choice] % np.uint64(self._num_buckets)).astype(np.int64)

    def _find(self, keys: Keys) -> Slots:
        slots = self._find_in(keys, self._bucket(keys, 0))
        left = np.flatnonzero(slots == MISSING)
        if len(left):
            slots[left] = self._find_in(keys[left], self._bucket(keys[left], 1))
        return slots

    def _find_in(self, keys: Keys, buckets: Slots) -> Slots:
        """Where each key lies in its bucket, MISSING if it does not."""
        rows = np.arange(len(keys))
        slots = np.full(len(keys), MISSING, np.int64)
        fits = self._tags[buckets] == _tags_of(keys)[:, None]
        while True:
            columns = fits.argmax(axis=1)
            at = buckets * _BUCKET_SLOTS + columns
            is_same = fits[rows, columns] & _are_same(self._keys[at], keys)
            slots[is_same] = at[is_same]
            fits[is_same] = False
            fits[rows, columns] = False  # another key with the same tag
            if not fits.any():
                return slots

    def _set(self, slots: Slots, values: Values) -> None:
        self._values[slots] = values
        freed = slots[values == 0]
        self._tags.reshape(-1)[freed] = 0
        self._num_in_slots -= len(freed)

    def _add(self, keys: Keys, values: Values) -> None:
        """Keys that are not there."""
        while len(keys):
            slots = self._free_slots(keys)
            for at in np.flatnonzero(slots == MISSING):
                self._beside[keys[at].tobytes()] = int(values[at])
            taken, rows = np.unique(slots, return_index=True)  # where two want the same slot, one gets it
            rows = rows[taken != MISSING]
            self._keys[slots[rows]] = keys[rows]
            self._tags.reshape(-1)[slots[rows]] = _tags_of(keys[rows])
            self._values[slots[rows]] = values[rows]
            self._num_in_slots += len(rows)
            is_left = slots != MISSING
            is_left[rows] = False
            keys, values = keys[is_left], values[is_left]

    def _free_slots(self, keys: Keys) -> Slots:
        """The first free slot of the emptier bucket, MISSING where both are full."""
        one, other = self._bucket(keys, 0), self._bucket(keys, 1)
        free_in_one, free_in_other = self._tags[one] == 0, self._tags[other] == 0
        is_other = free_in_other.sum(axis=1) > free_in_one.sum(axis=1)
        free = np.where(is_other[:, None], free_in_other, free_in_one)
        slots = np.where(is_other, other, one) * _BUCKET_SLOTS + free.argmax(axis=1)
        return np.where(free.any(axis=1), slots, MISSING)


def _tags_of(keys: Keys) -> Tags:
    return keys[:, 0].astype(np.uint32) | np.uint32(1)


def _are_same(some: Keys, others: Keys) -> NDArray[np.bool_]:
    """Row by row. Word by word: a reduction over so short an axis takes three times as long."""
    same: NDArray[np.bool_] = some[:, 0] == others[:, 0]
    for word in range(1, _WORDS):
        same &= some[:, word] == others[:, word]
    return same
