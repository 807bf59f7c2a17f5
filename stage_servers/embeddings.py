"""An instance's embeddings: kept for later requests, lent to peers, and used by sequences until they end."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING

from core.sequence import SequenceSpec
from kv_transfer.in_place.calls import OfferCalls
from kv_transfer.in_place.lender import Lender
from kv_transfer.pool import Pool
from stage_servers.cache.embeddings import EmbeddingCache, KeyListener
from stage_servers.cache.held import HeldEmbedding
from stage_servers.cache.settings import CacheSettings
from stage_servers.reports import Key
from stage_servers.tasks import call_for_ever

if TYPE_CHECKING:
    import torch

_TIDY_INTERVAL_S = 0.5


class EmbeddingShelf:
    """Knows the sequences that are prefilled here, and what each of them holds. Used on the event loop."""

    def __init__(
        self, pool: Pool, calls: OfferCalls, listener: KeyListener, settings: CacheSettings | None
    ) -> None:
        self._pool = pool
        self.cache = EmbeddingCache(pool, listener, settings)
        self.lender = Lender(pool, calls)
        self._tidying: asyncio.Task[None] | None = None
        self._specs: dict[Key, SequenceSpec] = {}
        self._held: defaultdict[Key, list[HeldEmbedding]] = defaultdict(list)

    @property
    def num_free_blocks(self) -> int:
        """Those that the cache could do without are among them."""
        return self._pool.blocks.num_free + self.cache.num_idle_blocks

    def start(self) -> None:
        calls = self.cache.tidy, self.lender.sweep
        self._tidying = asyncio.create_task(call_for_ever(_TIDY_INTERVAL_S, *calls), name="embeddings")

    def close(self) -> None:
        """What is in use stays so."""
        if self._tidying is not None:
            self._tidying.cancel()
        self.lender.close()

    def expect(self, spec: SequenceSpec) -> None:
        """The sequence is prefilled here; `release` ends that."""
        self._specs[spec.key] = spec

    def arrived(self, key: Key, item_index: int, block_ids: list[int], num_tokens: int) -> torch.Tensor:
        """Takes over the blocks, kept for others where the sequence allows it; [num_tokens, width]."""
        spec = self._specs.get(key)
        span = spec and next((span for span in spec.media if span.item_index == item_index), None)
        cache_key = self.cache.key_of(spec.cache, span) if spec and span else None
        if spec is None or spec.cache is None or cache_key is None:
            view = self._pool.read_tokens(block_ids, num_tokens)
            return self.put(key, HeldEmbedding(view, lambda: self._pool.blocks.release(block_ids)))
        return self.put(key, self.cache.adopt(cache_key, spec.cache.tenant, block_ids, num_tokens))

    def put(self, key: Key, held: HeldEmbedding) -> torch.Tensor:
        """The sequence is the user that releases it."""
        self._held[key].append(held)
        return held.embedding

    def release(self, key: Key) -> None:
        """Lets go of all that the sequence holds. Unknown keys are no error."""
        self._specs.pop(key, None)
        for held in self._held.pop(key, ()):
            held.release()

    def check_idle(self) -> None:
        """Raises AssertionError if anything but the cache holds blocks, or a sequence is expected."""
        if self._held or self._specs:
            raise AssertionError(f"embeddings held for {sorted(self._held.keys() | self._specs.keys())}")
        self.lender.check_idle()
        self.cache.check_idle()
        num_used = self._pool.num_blocks - self._pool.blocks.num_free
        if num_used != self.cache.num_blocks:
            raise AssertionError(f"{num_used} blocks of embeddings are used, {self.cache.num_blocks} kept")
