"""Requests for keys through an instance's books, policy by policy, and what an oracle could save at most."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from core.cache.book import CacheBook
from core.cache.policies import POLICIES

BASELINE, OURS = "lru", "seconds-saved"


@dataclass(frozen=True, slots=True)
class Item:
    """A block or an embedding, and what it takes to make it."""

    key: bytes
    size_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. A chain hits as far as its leading items are there; else every item is for itself."""

    at_s: float
    items: tuple[Item, ...]
    is_chain: bool


@dataclass(frozen=True, slots=True)
class Saved:
    """By one policy in one capacity."""

    policy: str
    capacity_bytes: int
    hit_rate: float  # of items
    seconds: float


def replay(asks: Iterable[Ask], policy: str, key_tokens: int, capacity_bytes: int) -> Saved:
    """Every ask is over before the next one comes; what was missing is made and offered to the cache."""
    book = CacheBook(POLICIES[policy](key_tokens), capacity_bytes)
    num_items = 0
    for ask in asks:
        num_items += len(ask.items)
        for part in [ask.items] if ask.is_chain else [(item,) for item in ask.items]:
            _pass(book, part, ask.at_s)
    book.check_integrity()
    return Saved(policy, capacity_bytes, book.stats.hits / num_items, book.stats.seconds_saved)


def most_seconds(asks: Sequence[Ask], capacity_bytes: int) -> float:
    """No cache of this size can save more, whatever it knows beforehand.

    Each reuse needs its bytes from the item's last use on: so many byte-uses of at most capacity times all
    uses. The reuses that save most per byte-use, the last one in part, are a bound.
    """
    reuses: list[tuple[float, float]] = []  # seconds, byte-uses
    last_used: dict[bytes, int] = {}
    uses = [item for ask in asks for item in ask.items]
    used_bytes = 0
    for item in uses:
        if item.key in last_used:
            reuses.append((item.seconds, item.size_bytes * (used_bytes - last_used[item.key])))
        last_used[item.key] = used_bytes
        used_bytes += item.size_bytes
    left = float(capacity_bytes) * used_bytes
    seconds = 0.0
    for saved_s, taken in sorted(reuses, key=lambda reuse: reuse[1] / reuse[0]):
        share = min(1.0, left / taken) if taken else 1.0
        seconds += share * saved_s
        left -= share * taken
    return seconds


def total_seconds(asks: Iterable[Ask]) -> float:
    """Without a cache."""
    return sum(item.seconds for ask in asks for item in ask.items)


def compare(asks: Sequence[Ask], key_tokens: int, capacities: dict[str, int]) -> list[dict[str, Any]]:
    """A row per named capacity."""
    whole_s = total_seconds(asks)
    return [
        {"capacity": name, "no_cache_s": whole_s, "most_s": most_seconds(asks, size)}
        | _figures({each: replay(asks, each, key_tokens, size) for each in (BASELINE, OURS)})
        for name, size in capacities.items()
    ]


def _figures(saved: dict[str, Saved]) -> dict[str, Any]:
    return {
        "hit_rate": {name: each.hit_rate for name, each in saved.items()},
        "saved_s": {name: each.seconds for name, each in saved.items()},
        "ratio": saved[OURS].seconds / saved[BASELINE].seconds,
    }


def _pass(book: CacheBook, items: Sequence[Item], now_s: float) -> None:
    entries, kind = book.take([item.key for item in items], now_s)
    for item in items[len(entries) :]:
        entry = book.store(
            item.key,
            entries[-1] if entries else None,
            (),
            now_s,
            tenant="",
            size_bytes=item.size_bytes,
            seconds=item.seconds,
            kind=kind,
        )
        if entry is None:
            break
        entries.append(entry)
    book.release(entries, now_s)
    book.drain()
