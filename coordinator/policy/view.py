"""Where a request goes, and how tokens make blocks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Placement:
    """Dispatch this request now: which instance runs which of its stages."""

    request_id: str
    encode: tuple[str, ...]  # of each media item
    prefill: str
    decode: str
    at_s: float  # when it was chosen, on the driver's clock
    held: frozenset[int] = frozenset()  # media items whose encoder has the embedding in its cache
    skipped: frozenset[int] = frozenset()  # items in the cached prefix: encoded only if that is not there
    prefix: str | None = None  # who has the prefix; None: nobody, nothing is cached
    prefix_tokens: int = 0  # leading tokens that prefill takes from there
    saved_s: float = 0.0  # of prefill, by the prefix

    @property
    def instance_ids(self) -> frozenset[str]:
        return frozenset((*self.encode, self.prefill, self.decode))


# The cluster's constant for embedding pools, whatever the KV blocks' size.
EMBEDDING_BLOCK_TOKENS = 16


def embedding_blocks(media_tokens: Iterable[int]) -> int:
    """Blocks that hold the embeddings of media items of so many tokens."""
    return sum(num_blocks(tokens, EMBEDDING_BLOCK_TOKENS) for tokens in media_tokens)


def num_blocks(num_tokens: int, block_tokens: int) -> int:
    """Blocks that hold so many tokens."""
    return -(-num_tokens // block_tokens)
