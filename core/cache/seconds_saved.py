"""The entry that saves least goes first: seconds saved per byte-second of keeping it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from itertools import count

from core.cache.entry import Entry
from core.cache.eviction import EvictionOrder
from core.cache.reuse import KINDS, ReuseHistory

_MOST_DRAWN = 1024
_MOST_KEPT = 4 * _MOST_DRAWN  # with what came and went since
_DRAWN_FOR_S = 1.0  # worths change as entries age; over this time little


class SecondsSaved:
    """worth = seconds to make it again * hits per second of keeping it / its bytes; see ReuseHistory.

    Users are told apart by how much of what they asked for was never seen before: a long new text is less
    often gone on with than a turn of a conversation. `key_tokens`: tokens that a key stands for.
    """

    def __init__(self, key_tokens: int, history: ReuseHistory | None = None) -> None:
        self._key_tokens = key_tokens
        self._history = ReuseHistory() if history is None else history

    def kind_of(self, keys: Sequence[bytes], num_found: int) -> int:
        num_seen = num_found
        while num_seen < len(keys) and keys[num_seen] in self._history:
            num_seen += 1
        new_tokens = (len(keys) - num_seen) * self._key_tokens
        return min(KINDS - 1, (new_tokens // 2048).bit_length())

    def note_use(self, entry: Entry, kind: int, now_s: float) -> None:
        entry.uses = max(entry.uses, self._history.note_use(entry.key, kind, now_s))
        entry.kind = kind

    def make_order(self) -> EvictionOrder:
        return _Order(self._history)


class _Order:
    """All entries where they are few, else the least of a random sample (as in hyperbolic caching, Blankstein
    et al., ATC 2017): worths change with time, so no sorted order of all would last. A sample serves many
    evictions, those that come while it does are in it.
    """

    def __init__(self, history: ReuseHistory) -> None:
        self._history = history
        self._random = random.Random(0)
        self._entries: list[Entry] = []
        self._places: dict[Entry, int] = {}
        self._ticks: dict[Entry, int] = {}  # the item of each drawn entry that counts
        self._drawn: list[tuple[float, float, int, Entry]] = []  # heap: worth, time of use, tick
        self._drawn_until_s = float("-inf")
        self._least_drawn = 0
        self._next_tick = count()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry, now_s: float) -> None:
        self._places[entry] = len(self._entries)
        self._entries.append(entry)
        if now_s < self._drawn_until_s:
            heappush(self._drawn, self._item(entry, now_s))
        if len(self._drawn) > _MOST_KEPT:
            self._drawn_until_s = float("-inf")
            self._drawn.clear()

    def discard(self, entry: Entry) -> None:
        place = self._places.pop(entry, None)
        if place is None:
            return
        self._ticks.pop(entry, None)
        last = self._entries.pop()
        if last is not entry:
            self._entries[place] = last
            self._places[last] = place

    def least(self, now_s: float) -> Entry | None:
        while self._entries:
            if now_s >= self._drawn_until_s or len(self._drawn) <= self._least_drawn:
                self._draw(now_s)
            *_, tick, entry = self._drawn[0]
            if self._ticks.get(entry) == tick:
                return entry
            heappop(self._drawn)
        return None

    def _draw(self, now_s: float) -> None:
        drawn = self._entries
        is_all = len(drawn) <= _MOST_DRAWN
        if not is_all:
            drawn = self._random.sample(drawn, _MOST_DRAWN)
        self._ticks.clear()
        self._drawn = [self._item(entry, now_s) for entry in drawn]
        heapify(self._drawn)
        self._least_drawn = 0 if is_all else _MOST_DRAWN // 2
        self._drawn_until_s = now_s + _DRAWN_FOR_S

    def _item(self, entry: Entry, now_s: float) -> tuple[float, float, int, Entry]:
        tick = self._ticks[entry] = next(self._next_tick)
        hits_per_s = self._history.worth(entry.uses, entry.kind, max(0.0, now_s - entry.used_s))
        return hits_per_s * entry.seconds / entry.size_bytes, entry.used_s, tick, entry
