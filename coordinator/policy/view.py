"""What policies see and say: frozen records, tokens and blocks as plain numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from core.stages import Roles


@dataclass(frozen=True, slots=True)
class InstanceView:
    """One instance as the coordinator's own books have it.

    Blocks are promised from dispatch on, before the instance has taken them,
    so that two decisions in a row do not give the same block twice.
    """

    instance_id: str
    roles: Roles
    block_tokens: int
    total_kv_blocks: int
    promised_kv_blocks: int = 0
    total_embedding_blocks: int | None = None  # None: not bounded
    promised_embedding_blocks: int = 0
    encode_tokens: int = 0  # media tokens dispatched here, not encoded yet
    prefill_tokens: int = 0  # prompt tokens dispatched here, first token not out yet
    sequences: int = 0  # dispatched here to be decoded, not finished


@dataclass(frozen=True, slots=True)
class WaitingView:
    """One request that waits for dispatch."""

    request_id: str
    arrival_s: float
    prompt_tokens: int  # tokens of an earlier dispatch included
    reserve_tokens: int  # output tokens to reserve room for
    media_tokens: tuple[int, ...] = ()  # of each media item
    priority: int = 0


@dataclass(frozen=True, slots=True)
class ClusterView:
    instances: tuple[InstanceView, ...]
    waiting: tuple[WaitingView, ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """Dispatch this request now: which instance runs which of its stages."""

    request_id: str
    encode: tuple[str, ...]  # of each media item
    prefill: str
    decode: str

    @property
    def instance_ids(self) -> frozenset[str]:
        return frozenset((*self.encode, self.prefill, self.decode))


class Policy(Protocol):
    """Asked by the dispatcher whenever a request, a report or an instance came or went."""

    def place(self, view: ClusterView) -> tuple[Placement, ...]:
        """The waiting requests to dispatch now, in order. Changes nothing."""
        ...


# The cluster's constant for embedding pools, whatever the KV blocks' size.
EMBEDDING_BLOCK_TOKENS = 16


def embedding_blocks(media_tokens: Iterable[int]) -> int:
    """Blocks that hold the embeddings of media items of so many tokens."""
    return sum(num_blocks(tokens, EMBEDDING_BLOCK_TOKENS) for tokens in media_tokens)


def num_blocks(num_tokens: int, block_tokens: int) -> int:
    """Blocks that hold so many tokens."""
    return -(-num_tokens // block_tokens)
