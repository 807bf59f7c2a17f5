"""Who goes first: the interface of eviction policies, which `core.cache.policies` names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from core.cache.entry import Entry

POLICY_NAMES = ("seconds-saved", "lru")  # the first is the default; `core.cache.policies` makes them


class EvictionOrder(Protocol):
    """The entries of one tier and tenant that may go. Called by the tier's book."""

    def __len__(self) -> int: ...

    def add(self, entry: Entry, now_s: float) -> None: ...

    def discard(self, entry: Entry) -> None:
        """It may not go any more, or is gone. Entries that are not there are no error."""
        ...

    def least(self, now_s: float) -> Entry | None:
        """The one to go first; changes nothing that can be seen."""
        ...


class EvictionPolicy(Protocol):
    """One per book. Orders it made know what it was told."""

    def kind_of(self, keys: Sequence[bytes], num_found: int) -> int:
        """What to remember of a user who asked for these keys and found so many of them."""
        ...

    def note_use(self, entry: Entry, kind: int, now_s: float) -> None:
        """The entry is stored, or taken, by a user of that kind."""
        ...

    def make_order(self) -> EvictionOrder: ...
