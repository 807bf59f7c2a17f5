"""What a pool looks like in memory, and what two ends must agree on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class PayloadKind(IntEnum):
    """What a pool holds; the numbers are those of the wire."""

    KV = 1
    EMBEDDING = 2


@dataclass(frozen=True, slots=True)
class PoolLayout:
    """A pool is [num_planes, num_blocks, block_tokens, token_bytes] bytes, in that order.

    Planes of KV: K of layer 0, V of layer 0, K of layer 1, …; an embedding has one.
    """

    kind: PayloadKind
    model_fingerprint: str
    dtype: str  # as torch names it: "bfloat16"
    num_planes: int
    block_tokens: int
    token_bytes: int  # of one token in one plane

    def __post_init__(self) -> None:
        for name in ("num_planes", "block_tokens", "token_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: at least 1, not {getattr(self, name)}")

    def difference(self, other: PoolLayout) -> str:
        """What keeps bytes of `self` from going into `other`, in words; empty if nothing does.

        Block sizes may differ: copies go token by token.
        """
        names = ("kind", "model_fingerprint", "dtype", "num_planes", "token_bytes")
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in names)
        return "; ".join(
            f"{name}: {mine!s} here, {theirs!s} there" for name, mine, theirs in pairs if mine != theirs
        )

    def pool_bytes(self, num_blocks: int) -> int:
        return self.num_planes * num_blocks * self.block_tokens * self.token_bytes
