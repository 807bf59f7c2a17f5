"""Embeddings that wait at a prefill instance, and the pool blocks they lie in."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from kv_transfer.pool import Pool
from stage_servers.reports import Key

if TYPE_CHECKING:
    import torch


class EmbeddingShelf:
    """Blocks held per sequence until the sequence has ended here."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._blocks: defaultdict[Key, list[int]] = defaultdict(list)

    def keep(self, key: Key, block_ids: list[int], num_tokens: int) -> torch.Tensor:
        """Takes over the blocks; returns [num_tokens, embedding_width]."""
        self._blocks[key] += block_ids
        return self._pool.read_tokens(block_ids, num_tokens)

    def release(self, key: Key) -> None:
        """Frees the sequence's blocks. Unknown keys are no error."""
        blocks = self._blocks.pop(key, None)
        if blocks:
            self._pool.blocks.release(blocks)

    def check_idle(self) -> None:
        """Raises AssertionError if blocks are held."""
        if self._blocks:
            raise AssertionError(f"embeddings held for {sorted(self._blocks)}")
