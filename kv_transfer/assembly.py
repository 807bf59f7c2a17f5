"""One item that several senders bring, each with heads of its own: what is there and what is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

from kv_transfer.leases import Arrival, Item, Lease


@dataclass(frozen=True, slots=True)
class Assembly:
    """The live leases of one item. Their heads are disjoint, their blocks the same.

    One sender that holds all heads makes an assembly of one part.
    """

    parts: Sequence[Lease]
    heads: range  # that the receiver holds

    def has_place_for(self, heads: range) -> bool:
        """Whether a part with these heads belongs to what is here: to some of it, and in nobody's way."""
        return bool(self.parts) and not any(set(part.heads) & set(heads) for part in self.parts)

    def disagreement(self, arrival: Arrival) -> str:
        """What sets `arrival` apart from parts that arrived before, in words; empty if nothing does."""
        for part in self.parts:
            other = part.arrival
            if other is not None and other.found != arrival.found:
                mine, theirs = arrival.found.num_tokens, other.found.num_tokens
                return f"num_tokens: {mine}, another part of the item has {theirs}"
            if other is not None and other.outputs != arrival.outputs:
                return "output_token_ids: another part of the item has others"
        return ""

    def is_completed_by(self, last: Lease) -> bool:
        """Whether all heads are there once `last` has arrived."""
        arrived = [part for part in self.parts if part is last or part.arrival is not None]
        return sum(len(part.heads) for part in arrived) == len(self.heads)


class ItemLocks:
    """One turn at a time for each item, so that one of its parts waits for room and the others join it."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[Item, asyncio.Lock] = WeakValueDictionary()

    def of(self, item: Item) -> asyncio.Lock:
        lock = self._locks.get(item)
        if lock is None:
            lock = self._locks[item] = asyncio.Lock()
        return lock
