"""A small embedding pool with its cache, and what is put into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from core.clock import ManualClock
from core.sequence import CacheUse, MediaSpan
from kv_transfer.pool import Pool, embedding_layout
from stage_servers.cache.embeddings import EmbeddingCache
from stage_servers.cache.settings import CacheSettings

WIDTH = 6
BLOCK_BYTES = 16 * WIDTH * 4
USE = CacheUse(b"s" * 32, "t")


def span(name: str, num_tokens: int = 20) -> MediaSpan:
    return MediaSpan(0, 4, num_tokens, (1, 2, 2), b"", name.encode().ljust(32, b"\0"))


def embedding(seed: int, num_tokens: int = 20) -> torch.Tensor:
    return torch.randn(num_tokens, WIDTH, generator=torch.Generator().manual_seed(seed))


class Told:
    """Remembers what is kept, as told; implements KeyListener."""

    def __init__(self) -> None:
        self.keys: set[bytes] = set()

    def note(self, stored: Sequence[bytes], dropped: Sequence[bytes]) -> None:
        assert not set(stored) & set(dropped)
        self.keys |= set(stored)
        self.keys -= set(dropped)


class Keeping:
    """Four items of two blocks each fit."""

    def __init__(
        self, *, num_blocks: int = 8, shares: Mapping[str, float] | None = None, **settings: int | str | None
    ) -> None:
        layout = embedding_layout("model", torch.float32, width=WIDTH)
        self.pool = Pool(layout, num_blocks)
        self.told = Told()
        self.clock = ManualClock()
        chosen = CacheSettings(**({"policy": "lru"} | settings))  # type: ignore[arg-type]
        self.cache = EmbeddingCache(self.pool, self.told, chosen, clock=self.clock)
        self.cache.set_shares(shares or {})

    def key(self, name: str, use: CacheUse = USE) -> bytes:
        key = self.cache.key_of(use, span(name))
        assert key is not None
        return key

    def keep(self, name: str, seed: int = 0, *, use: CacheUse = USE, seconds: float = 1.0) -> bool:
        self.clock.advance(1.0)
        held = self.cache.keep(self.key(name, use), use.tenant, embedding(seed), seconds)
        if held is not None:
            held.release()
        return held is not None

    def has(self, name: str, use: CacheUse = USE) -> bool:
        return self.key(name, use) in self.cache.keys

    def arrive(self, seed: int) -> list[int]:
        """Blocks in which a peer's embedding has arrived."""
        blocks = self.pool.blocks.allocate(2)
        self.pool.write_tokens(0, blocks, 0, embedding(seed))
        return blocks

    def check(self) -> None:
        """Nobody uses anything, and what is kept is told and holds its blocks."""
        self.cache.check_idle()
        self.pool.blocks.check_integrity()
        assert set(self.cache.keys) == self.told.keys
        assert self.pool.num_blocks - self.pool.blocks.num_free == self.cache.num_blocks
        self.cache.flush()
        assert self.pool.blocks.num_free == self.pool.num_blocks
        assert not self.told.keys
