"""What must hold between the entries of a book and its sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from core.cache.entry import Entry, Tier
from core.cache.tier import TierMemory


def check_books(
    kept: Collection[Entry],
    tiers: Mapping[Tier, TierMemory],
    unused: Collection[Entry],
    tails: Collection[Entry],
) -> None:
    """Raises AssertionError naming what does not fit."""
    entries = set(kept)
    children: Counter[tuple[Entry, Tier]] = Counter()
    sizes: Counter[tuple[Tier, str]] = Counter()
    for entry in entries:
        sizes[entry.tier, entry.tenant] += entry.size_bytes
        if entry.parent is not None:
            children[entry.parent, entry.tier] += 1
            _check_parent(entry, entry.parent, entries)
    for entry in entries:
        for tier in Tier:
            _equal("children", entry.num_children[tier], children[entry, tier])
    for tier, memory in tiers.items():
        of_tenants = Counter({tenant: size for (where, tenant), size in sizes.items() if where is tier})
        _equal(f"bytes by tenant on the {tier.name}", memory.bytes_of, of_tenants)
        _equal(f"bytes on the {tier.name}", memory.used_bytes, sum(of_tenants.values()))
        _check(memory.used_bytes <= memory.capacity_bytes, f"the {tier.name} holds more than it can")
        unused_bytes = sum(entry.size_bytes for entry in unused if entry.tier is tier)
        _equal(f"unused bytes on the {tier.name}", memory.unused_bytes, unused_bytes)
        evictable = sum(entry.is_evictable for entry in entries if entry.tier is tier)
        _equal(f"entries of the {tier.name} that may go", memory.num_evictable, evictable)
    _equal("unused entries", set(unused), {entry for entry in entries if not entry.refs})
    _equal("tails", set(tails), {entry for entry in entries if entry.tail})


def _check_parent(entry: Entry, parent: Entry, entries: set[Entry]) -> None:
    _check(parent in entries, "a parent is gone")
    _check(parent.tier <= entry.tier, "a parent is on the host, its child on the device")
    _check(parent.refs >= entry.refs, "a parent is used less than its child")


def _equal(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"{what}: {found}, should be {expected}")


def _check(is_fine: bool, problem: str) -> None:
    if not is_fine:
        raise AssertionError(problem)
