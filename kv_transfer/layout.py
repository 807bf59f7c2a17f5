"""What a pool looks like in memory, and what two ends must agree on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple


class PayloadKind(IntEnum):
    """What a pool holds; the numbers are those of the wire."""

    KV = 1
    EMBEDDING = 2


class MemoryOrder(IntEnum):
    """How a pool's axes lie in memory, the slowest first; the numbers are those of the wire.

    Head means head and its bytes. The engine works on the first of them.
    """

    PLANE_BLOCK_TOKEN_HEAD = 1
    PLANE_BLOCK_HEAD_TOKEN = 2
    BLOCK_PLANE_TOKEN_HEAD = 3
    BLOCK_PLANE_HEAD_TOKEN = 4

    @property
    def has_planes_in_blocks(self) -> bool:
        return self in {MemoryOrder.BLOCK_PLANE_TOKEN_HEAD, MemoryOrder.BLOCK_PLANE_HEAD_TOKEN}

    @property
    def has_tokens_in_heads(self) -> bool:
        return self in {MemoryOrder.PLANE_BLOCK_HEAD_TOKEN, MemoryOrder.BLOCK_PLANE_HEAD_TOKEN}


class Strides(NamedTuple):
    """Bytes from one plane, block, token (in its block) or head of a pool to the next."""

    plane: int
    block: int
    token: int
    head: int


@dataclass(frozen=True, slots=True)
class PoolLayout:
    """A pool holds num_planes × num_blocks × block_tokens × num_heads × head_bytes, in `order`.

    Planes of KV: K of layer 0, V of layer 0, K of layer 1, …; an embedding has one
    plane and one head. A tensor-parallel shard holds `num_heads` heads from
    `first_head` on, of the model's `total_heads` KV heads.
    """

    kind: PayloadKind
    model_fingerprint: str
    dtype: str  # as torch names it: "bfloat16"
    num_planes: int
    block_tokens: int
    token_bytes: int  # of one token in one plane: of the heads held here
    first_head: int = 0
    num_heads: int = 1
    total_heads: int = 1
    order: MemoryOrder = MemoryOrder.PLANE_BLOCK_TOKEN_HEAD

    def __post_init__(self) -> None:
        for name in ("num_planes", "block_tokens", "token_bytes", "num_heads", "total_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: at least 1, not {getattr(self, name)}")
        if self.first_head < 0 or self.first_head + self.num_heads > self.total_heads:
            raise ValueError(
                f"first_head: {self.num_heads} from {self.first_head} on are not within {self.total_heads}"
            )
        if self.token_bytes % self.num_heads:
            raise ValueError(f"token_bytes: {self.token_bytes} are not {self.num_heads} equal heads")

    @property
    def head_bytes(self) -> int:
        """Of one head of one token in one plane."""
        return self.token_bytes // self.num_heads

    @property
    def heads(self) -> range:
        """Of the model's heads, those held here."""
        return range(self.first_head, self.first_head + self.num_heads)

    def common_heads(self, other: PoolLayout) -> range:
        """Heads that both ends hold; empty if there are none."""
        start = max(self.heads.start, other.heads.start)
        return range(start, max(start, min(self.heads.stop, other.heads.stop)))

    def difference(self, other: PoolLayout) -> str:
        """What keeps bytes of `self` from going into `other`, in words; empty if nothing does.

        Block sizes, orders and the heads of each end may differ: descriptors bridge that.
        """
        names = ("kind", "model_fingerprint", "dtype", "num_planes", "total_heads", "head_bytes")
        pairs = [(name, getattr(self, name), getattr(other, name)) for name in names]
        if self.total_heads == other.total_heads and not self.common_heads(other):
            pairs.append(("heads", _span(self.heads), _span(other.heads)))
        return "; ".join(
            f"{name}: {mine!s} here, {theirs!s} there" for name, mine, theirs in pairs if mine != theirs
        )

    def pool_bytes(self, num_blocks: int) -> int:
        return self.num_planes * num_blocks * self.block_tokens * self.token_bytes

    def strides(self, num_blocks: int) -> Strides:
        """Of a pool of that many blocks."""
        block_bytes = self.block_tokens * self.token_bytes  # of one plane
        if self.order.has_planes_in_blocks:
            plane, block = block_bytes, self.num_planes * block_bytes
        else:
            plane, block = num_blocks * block_bytes, block_bytes
        if self.order.has_tokens_in_heads:
            return Strides(plane, block, self.head_bytes, self.block_tokens * self.head_bytes)
        return Strides(plane, block, self.token_bytes, self.head_bytes)


def _span(heads: range) -> str:
    return f"{heads.start} to {heads.stop - 1}"
