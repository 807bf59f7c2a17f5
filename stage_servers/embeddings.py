"""Embeddings that sequences use at a prefill instance, until they have ended here."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from core.sequence import SequenceSpec
from kv_transfer.pool import Pool
from stage_servers.cache.embeddings import EmbeddingCache
from stage_servers.cache.held import HeldEmbedding
from stage_servers.reports import Key

if TYPE_CHECKING:
    import torch


class EmbeddingShelf:
    """Knows the sequences that are prefilled here, and what each of them holds. Used on the event loop."""

    def __init__(self, pool: Pool, cache: EmbeddingCache) -> None:
        self._pool = pool
        self._cache = cache
        self._specs: dict[Key, SequenceSpec] = {}
        self._held: defaultdict[Key, list[HeldEmbedding]] = defaultdict(list)

    def expect(self, spec: SequenceSpec) -> None:
        """The sequence is prefilled here; `release` ends that."""
        self._specs[spec.key] = spec

    def arrived(self, key: Key, item_index: int, block_ids: list[int], num_tokens: int) -> torch.Tensor:
        """Takes over the blocks, kept for others where the sequence allows it; [num_tokens, width]."""
        spec = self._specs.get(key)
        span = spec and next((span for span in spec.media if span.item_index == item_index), None)
        cache_key = self._cache.key_of(spec.cache, span) if spec and span else None
        if spec is None or spec.cache is None or cache_key is None:
            view = self._pool.read_tokens(block_ids, num_tokens)
            return self.put(key, HeldEmbedding(view, lambda: self._pool.blocks.release(block_ids)))
        return self.put(key, self._cache.adopt(cache_key, spec.cache.tenant, block_ids, num_tokens))

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
        """Raises AssertionError if anything is held, or a sequence expected."""
        if self._held or self._specs:
            raise AssertionError(f"embeddings held for {sorted(self._held.keys() | self._specs.keys())}")
