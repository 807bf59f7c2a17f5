"""One running sequence: its tokens, and how far their KV has been computed."""

from __future__ import annotations

from bisect import bisect_right
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from core.grammars import Mask, Matcher
from core.sequence import FinishReason, MediaSpan, SequenceSpec
from stage_servers.cache.prefix import Prefix
from stage_servers.engine.records import Key


@dataclass(slots=True, eq=False)
class Sequence:
    """Engine-side state. A sequence decodes when only its newest token lacks KV, else it prefills.

    tokens   p p p p p p o o o        p prompt, o outputs
    KV       . . . . . . . . .        it waits; with num_cached = 2 for all but the first two tokens
    KV       k k k k . . . . .        num_computed = 4: prefilling
    KV       k k k k k k k k .        num_computed = len(tokens) - 1: decoding
    """

    spec: SequenceSpec
    arrival: int  # order of arrival at this engine
    positions: torch.Tensor  # [3, len(prompt)] rotary positions, on the CPU
    position_delta: int  # position of token i >= len(prompt) is i + position_delta
    hand_over: bool = False
    waits_for_all: bool = False  # nothing runs before all embeddings are there
    tokens: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    num_computed: int = 0
    embeddings: dict[int, torch.Tensor] = field(default_factory=dict)
    is_parked: bool = False  # handed over or frozen: runs no step, keeps its blocks
    num_restarts: int = 0  # times its KV was forgotten
    prefix: Prefix | None = None  # None: the cache neither has nor keeps anything of it
    num_cached: int = 0  # tokens that the cache has for it while it waits, then: gave it
    promised_tokens: int = 0  # media items within these have no embedding on the way
    asked: set[int] = field(default_factory=set)  # items whose embeddings were asked for all the same
    matcher: Matcher | None = None  # of its format; follows from the outputs, wherever they were made
    mask: Future[Mask] | None = None  # which tokens may come next: [vocabulary]; None: any
    is_mask_late: bool = False  # a step had to go on without its mask

    def __post_init__(self) -> None:
        self.tokens = [*self.spec.prompt, *self.spec.outputs]

    @property
    def key(self) -> Key:
        return self.spec.key

    @property
    def num_outputs(self) -> int:
        return len(self.tokens) - len(self.spec.prompt)

    @property
    def tenant(self) -> str:
        """On whose behalf it takes room; empty where nobody said."""
        return self.spec.cache.tenant if self.spec.cache else ""

    @property
    def first_pending(self) -> int:
        """The first token whose KV is still to be computed."""
        return self.num_computed if self.is_started else self.num_cached

    @property
    def num_pending(self) -> int:
        """Tokens whose KV is still to be computed."""
        return len(self.tokens) - self.first_pending

    @property
    def has_media(self) -> bool:
        return bool(self.spec.media)

    @property
    def is_started(self) -> bool:
        """Whether it holds blocks."""
        return bool(self.blocks)

    @property
    def is_decoding(self) -> bool:
        return self.num_pending == 1 and self.num_outputs > 0 and self.num_computed > 0 and not self.hand_over

    @property
    def waits_for_mask(self) -> bool:
        return self.is_mask_late and self.mask is not None and not self.mask.done()

    @property
    def num_ready(self) -> int:
        """Pending tokens up to the first one whose embedding has not arrived."""
        if self.waits_for_all and self.num_missing > 0:
            return 0
        first = self.first_pending
        for span in self.spec.media:
            if span.end_token > first and span.item_index not in self.embeddings:
                return max(0, span.first_token - first)
        return self.num_pending

    @property
    def unpromised_items(self) -> list[int]:
        """Items that were to be in the cached prefix, are not, and were not asked for."""
        return [
            span.item_index
            for span in self.spec.media
            if self.first_pending < span.end_token <= self.promised_tokens
            and span.item_index not in self.embeddings
            and span.item_index not in self.asked
        ]

    @property
    def num_missing(self) -> int:
        """Items that pending tokens need and whose embedding has not arrived."""
        pending = [span for span in self.spec.media if span.end_token > self.first_pending]
        return sum(span.item_index not in self.embeddings for span in pending)

    @property
    def can_recompute(self) -> bool:
        """Whether its KV could be made again here; items that a prefix spared it would be asked for."""
        return all(
            span.item_index in self.embeddings or span.end_token <= self.promised_tokens
            for span in self.spec.media
        )

    @property
    def most_tokens(self) -> int:
        """Tokens that could have KV when the sequence has ended; the last one needs none."""
        return len(self.spec.prompt) + self.spec.sampling.max_tokens - 1

    def forget_kv(self) -> list[int]:
        """Goes back to before the first token; returns the blocks it held."""
        blocks, self.blocks = self.blocks, []
        self.num_computed = self.num_cached = 0
        self.num_restarts += 1
        return blocks

    def finish_reason(self, token_id: int, context_tokens: int) -> FinishReason | None:
        """Why the sequence ends with this token, its newest, if it does."""
        if token_id in self.spec.stop_token_ids:
            return FinishReason.STOP
        if self.num_outputs >= self.spec.sampling.max_tokens or len(self.tokens) >= context_tokens:
            return FinishReason.LENGTH
        return None

    def spans_between(self, first: int, end: int) -> list[MediaSpan]:
        """The media spans that overlap tokens first..end-1."""
        media = self.spec.media
        start = max(0, bisect_right(media, first, key=lambda span: span.first_token) - 1)
        return [span for span in media[start:] if span.first_token < end and span.end_token > first]
