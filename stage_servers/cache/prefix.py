"""What one sequence has in the cache of its instance."""

from __future__ import annotations

from dataclasses import dataclass, field

from core.cache.entry import Entry
from stage_servers.cache.sequence_keys import SequenceKeys


@dataclass(slots=True, eq=False)
class Prefix:
    """Of the cache alone; the sequence holds it and hands it back with every call.

    found     e e e e .       while it waits: what it would get; nobody keeps that for it
    entries   e e e e e       once it has started: in use by it, and its own blocks as they fill
    """

    keys: SequenceKeys
    tenant: str  # against whose share its blocks count
    found: list[Entry] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    kind: int = 0  # as the eviction policy tells users apart


@dataclass(frozen=True, slots=True)
class PinnedPrefix:
    """Blocks that stay as they are until they are unpinned, for a peer that they are copied to."""

    chain: tuple[Entry, ...]  # all from the first token on
    num_tokens: int

    @property
    def blocks(self) -> list[int]:
        """In the pool, in order of tokens, from the first one on."""
        return [block for entry in self.chain for block in entry.blocks]
