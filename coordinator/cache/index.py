"""Which instances have which blocks and embeddings, as they reported it; wrong only by what is on its way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from coordinator.cache.digests import DigestTable, Keys, Values, as_keys
from coordinator.cache.holders import HolderSets, members
from coordinator.policy.prefixes import Level, Prefixes

_STRETCH = 64  # keys of a chain
_FEW_SETS = 4096


@dataclass(frozen=True, slots=True)
class _Life:
    """One epoch of an instance, and the number it has in masks."""

    epoch: int
    number: int


class ClusterIndex:
    """Used on one thread. An instance's blocks and embeddings live in the same table: their keys differ.

    An instance that is gone, or lives anew, is out of every answer at once; what it left in the table goes
    bit by bit with `tidy`, and only then is its number given to another.
    """

    def __init__(self, num_keys: int = 1024) -> None:
        self._table = DigestTable(num_keys)
        self._sets = HolderSets()
        self._lives: dict[str, _Life] = {}
        self._names: list[str] = []  # by number; answers keep it, so that a change makes another list
        self._live = 0  # mask of numbers
        self._leaving: set[int] = set()  # gone, and a whole sweep has not passed since
        self._free: list[int] = []
        self._swept: set[int] = set()  # those of the leaving that the present sweep takes out
        self._next_slot = 0
        self._swept_moves = 0  # of the table when the sweep began
        self._many_sets = _FEW_SETS

    def __len__(self) -> int:
        """Keys, those of instances that are gone included until `tidy` has been there."""
        return len(self._table)

    @property
    def size_bytes(self) -> int:
        return self._table.size_bytes

    def reserve(self, num_keys: int) -> None:
        """Room for so many keys: call it when instances come, with what their pools hold, so that the table
        does not grow, and pause, under load.
        """
        self._table.reserve(num_keys)

    def attach(self, instance_id: str, epoch: int) -> None:
        """A new life of an instance, which has nothing yet."""
        self.detach(instance_id)
        number = self._free.pop() if self._free else len(self._names)
        self._names = [*self._names[:number], instance_id, *self._names[number + 1 :]]
        self._lives[instance_id] = _Life(epoch, number)
        self._live |= 1 << number

    def detach(self, instance_id: str) -> None:
        """It has nothing any more. Unknown ones are no error."""
        life = self._lives.pop(instance_id, None)
        if life is not None:
            self._live &= ~(1 << life.number)
            self._leaving.add(life.number)

    def update(
        self, instance_id: str, epoch: int, stored: Sequence[bytes], evicted: Sequence[bytes] = ()
    ) -> bool:
        """One report, as things are at its end: no key stands in both. False, and nothing happens, if the
        instance has no such life now. Raises ValueError for a key that is no digest.
        """
        life = self._lives.get(instance_id)
        if life is None or life.epoch != epoch:
            return False
        self._change(_distinct(evicted), life.number, is_there=False)
        self._change(_distinct(stored), life.number, is_there=True)
        if len(self._sets) > self._many_sets:
            self._sets.forget_unused(self._table.used_values(self._sets.num_ids))
            self._many_sets = max(_FEW_SETS, 2 * len(self._sets))
        return True

    def mask_of(self, instance_ids: Iterable[str]) -> int:
        """These as `among` of `prefixes`, until instances come or go. Unknown ones are in no mask."""
        lives = [self._lives[name] for name in instance_ids if name in self._lives]
        return sum(1 << life.number for life in lives)

    def prefixes(self, chain: Sequence[bytes], *, among: int | None = None, key_tokens: int = 1) -> Prefixes:
        """For each instance that has some of it, how many leading keys it has, times `key_tokens`.

        Instances keep no block without those before it. So every 64th key is looked up, and all of a stretch
        only where somebody has less at its end than before it. `among` None: of all instances.
        """
        return Prefixes(
            self._names,
            [
                Level(num_keys * key_tokens, members(holders))
                for num_keys, holders in self._prefixes(
                    chain, self._live if among is None else among & self._live
                )
            ],
        )

    def holders(self, key: bytes) -> list[str]:
        """The instances that have this block or embedding."""
        return [self._names[number] for number in members(self._holders(key) & self._live).tolist()]

    @property
    def is_tidy(self) -> bool:
        return not self._leaving

    def tidy(self, most_slots: int = 1 << 18) -> None:
        """Goes over so many slots and takes out instances that are gone. Call it now and then."""
        if not self._next_slot or self._swept_moves != self._table.num_moves:
            self._next_slot, self._swept_moves = 0, self._table.num_moves
            self._swept = set(self._leaving)
        if not self._swept:
            return
        everyone = (1 << len(self._names)) - 1
        gone = sum(1 << number for number in self._swept)
        self._table.remap(self._next_slot, most_slots, self._sets.limited_to(everyone & ~gone))
        self._next_slot += most_slots
        if self._next_slot >= self._table.num_slots:
            self._next_slot = 0
            self._leaving -= self._swept
            self._free += sorted(self._swept)

    def _change(self, keys: Keys, number: int, *, is_there: bool) -> None:
        if not len(keys):
            return
        before, which = np.unique(self._table.values(keys), return_inverse=True)
        change = self._sets.with_holder if is_there else self._sets.without_holder
        after = np.array([change(set_id, number) for set_id in before.tolist()], np.int32)
        self._table.put(keys, after[which])

    def _prefixes(self, chain: Sequence[bytes], holding: int) -> Iterator[tuple[int, int]]:
        """Leading keys, and the mask of those who have just these."""
        if not chain or not self._holders(chain[0]) & holding:
            return  # nobody knows how it begins, which costs little to see
        places = self._uncertain(chain, holding)
        set_ids = self._set_ids([chain[place] for place in places]).tolist()
        last = -1
        for place, set_id in zip(places, set_ids, strict=True):
            if set_id == last:
                continue
            still, last = self._sets.mask(set_id) & holding, set_id
            if holding != still and place:
                yield place, holding & ~still
            holding = still
        if holding:
            yield len(chain), holding

    def _holders(self, key: bytes) -> int:
        """Their mask, those that are gone included."""
        return self._sets.mask(self._table.value(key))

    def _set_ids(self, keys: Sequence[bytes]) -> Values:
        return self._table.values(as_keys(keys))

    def _uncertain(self, chain: Sequence[bytes], holding: int) -> list[int]:
        """Places of the chain in the stretches at whose end one of the holding has less than before."""
        if len(chain) <= _STRETCH:
            return list(range(len(chain)))
        places: list[int] = []
        ends = [*range(_STRETCH, len(chain), _STRETCH), len(chain)]
        start = 0
        for end, set_id in zip(ends, self._set_ids([chain[end - 1] for end in ends]).tolist(), strict=True):
            still = self._sets.mask(set_id) & holding
            if still != holding:
                places += range(start, end)
            holding, start = still, end
            if not holding:
                break
        return places


def _distinct(digests: Sequence[bytes]) -> Keys:
    return as_keys(list(dict.fromkeys(digests)))
