"""What a book's decisions ask the owner of the memory to do, and what others may be told of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from core.cache.entry import Entry, Tier


class MoveKind(Enum):
    DROP = "drop"  # the blocks are free
    DEMOTE = "demote"  # copy to new blocks of the host, set entry.blocks; then the old ones are free
    PROMOTE = "promote"  # the same, to the device


@dataclass(frozen=True, slots=True)
class Move:
    kind: MoveKind
    entry: Entry
    tier: Tier  # in which `blocks` lie
    blocks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Changes:
    """Since the last time they were asked for. A key that came and went stands in neither list or in the
    last one it belongs to. Tails, which nobody asks for by key, stand in none.
    """

    moves: tuple[Move, ...]  # to be done in this order: each finds the room that those before it made
    stored: tuple[bytes, ...]
    dropped: tuple[bytes, ...]


@dataclass(slots=True)
class CacheStats:
    """Sums over a book's life."""

    hits: int = 0
    hit_bytes: int = 0
    seconds_saved: float = 0.0
    stored: int = 0
    demoted: int = 0
    promoted: int = 0
    dropped_for_room: int = 0
    dropped_by_age: int = 0
    flushed: int = 0
    refused: int = 0  # could not be stored: all the room is in use, or others' by their shares
