"""What determines a sequence's tokens, as it travels between processes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from core.output_format import OutputFormat
from core.sampling import SamplingParams


@dataclass(frozen=True, slots=True)
class MediaSpan:
    """The placeholder tokens of one media item in the prompt."""

    item_index: int
    first_token: int
    num_tokens: int
    grid: tuple[int, ...]  # patches (time, height, width) before merging
    digest: bytes  # SHA-256 of the item's bytes
    identity: bytes = b""  # of core.cache.keys.media_identity, 32 bytes; empty: nothing of it is cached
    max_pixels: int | None = None  # the processor's bound for this item; None: as it is set

    @property
    def end_token(self) -> int:
        return self.first_token + self.num_tokens


@dataclass(frozen=True, slots=True)
class CacheUse:
    """What a request may find in caches, and leave there."""

    salt: bytes  # of core.cache.scope.salt_of, 32 bytes
    tenant: str  # against whose share entries count


@dataclass(frozen=True, slots=True)
class SequenceSpec:
    """Everything that determines a sequence's tokens.

    `outputs` are tokens generated before this dispatch; the sequence goes on
    after them, its next token having index len(outputs).
    """

    request_id: str
    attempt: int
    prompt: tuple[int, ...]  # token ids, placeholders expanded
    sampling: SamplingParams
    media: tuple[MediaSpan, ...] = ()  # in order of first_token
    outputs: tuple[int, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    cache: CacheUse | None = None  # None: nothing is looked up or kept
    format: OutputFormat | None = None  # None: any text
    tenant: str = ""  # who asked; among tenants formats are compiled in turn

    @property
    def key(self) -> tuple[str, int]:
        """Names one dispatch of the request."""
        return self.request_id, self.attempt


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Log probability of a chosen token and of its best alternatives."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()  # (token id, log probability), best first


class FinishReason(Enum):
    """Why an answer ended, as said to clients."""

    STOP = "stop"  # end token, stop token or stop string
    LENGTH = "length"  # max_tokens
