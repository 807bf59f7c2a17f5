"""What an instance keeps: one block of KV, whole or begun, or one embedding."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

# A token of the unified sequence: its id, or which token of which media item it is.
Unit = int | tuple[bytes, int]


class Tier(IntEnum):
    DEVICE = 0
    HOST = 1  # RAM under the device


@dataclass(slots=True, eq=False)
class Entry:
    """Changed by its book only, but for `blocks`, which the caller sets after a move to another tier.

    Who takes an entry takes all entries before it, so one that is in use has no parent that is not, and
    one on the device no parent on the host.
    """

    key: bytes
    parent: Entry | None = field(repr=False)  # the block before it; None for a first one and for an embedding
    tenant: str  # whose share it counts against
    size_bytes: int
    seconds: float  # that it takes to make it again
    blocks: tuple[int, ...]  # where it lies in its tier, in the caller's numbers
    used_s: float  # when it was last in use
    tail: tuple[Unit, ...] = ()  # the tokens of a block that is not full
    tier: Tier = Tier.DEVICE
    refs: int = 0
    uses: int = 0  # again, as far as that is remembered
    kind: int = 0  # of its last user, as its eviction policy tells them apart
    num_children: list[int] = field(default_factory=lambda: [0, 0])  # by tier
    is_flushed: bool = False  # in use, but nobody else finds it

    @property
    def is_evictable(self) -> bool:
        """Whether nobody uses it or has it as a parent in its tier."""
        return not self.refs and not self.num_children[self.tier]
