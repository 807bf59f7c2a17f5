"""Sets of instances, each kept once and known by a small number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EMPTY = 0


class HolderSets:
    """Sets are bit masks over instances' numbers; most keys share few different sets."""

    def __init__(self) -> None:
        self._masks: list[int] = [0]
        self._ids: dict[int, int] = {0: EMPTY}
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def num_ids(self) -> int:
        """Ids are below this."""
        return len(self._masks)

    def mask(self, set_id: int) -> int:
        return self._masks[set_id]

    def with_holder(self, set_id: int, holder: int) -> int:
        return self.id_of(self._masks[set_id] | 1 << holder)

    def without_holder(self, set_id: int, holder: int) -> int:
        return self.id_of(self._masks[set_id] & ~(1 << holder))

    def id_of(self, mask: int) -> int:
        found = self._ids.get(mask)
        if found is None:
            found = self._ids[mask] = self._new_id(mask)
        return found

    def limited_to(self, holders: int) -> NDArray[np.int32]:
        """For every id, that of its set without those who are not in the mask `holders`."""
        limited = np.zeros(self.num_ids, np.int32)
        for mask, set_id in list(self._ids.items()):
            limited[set_id] = self.id_of(mask & holders)
        return limited

    def forget_unused(self, is_used: NDArray[np.bool_]) -> None:
        """Frees the ids of sets that no key has."""
        for mask, set_id in list(self._ids.items()):
            if set_id != EMPTY and not is_used[set_id]:
                del self._ids[mask]
                self._free.append(set_id)

    def _new_id(self, mask: int) -> int:
        if self._free:
            set_id = self._free.pop()
            self._masks[set_id] = mask
            return set_id
        self._masks.append(mask)
        return len(self._masks) - 1


def members(mask: int) -> NDArray[np.int64]:
    """The numbers of the bits that are set, in order."""
    data = np.frombuffer(mask.to_bytes((mask.bit_length() + 7) // 8, "little"), np.uint8)
    return np.flatnonzero(np.unpackbits(data, bitorder="little"))
