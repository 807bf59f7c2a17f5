"""What is said to an instance's caches as wholes, wherever their books live."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kv_transfer.layout import PayloadKind
from stage_servers.cache.embeddings import EmbeddingCache
from stage_servers.engine_thread import EngineThread

if TYPE_CHECKING:
    from stage_servers.engine.engine import Engine


class CacheControl:
    """Used on the event loop; the KV's book hears of it in the engine thread."""

    def __init__(self, thread: EngineThread, engine: Engine, embeddings: EmbeddingCache) -> None:
        self._thread = thread
        self._engine = engine
        self._embeddings = embeddings

    def flush(self, tenant: str | None, pool: PayloadKind | None) -> None:
        """Forgets what is cached for the tenant, or for all, in one pool or in all."""
        if pool is not PayloadKind.EMBEDDING:
            self._thread.post(lambda: self._engine.flush_cache(tenant))
        if pool is not PayloadKind.KV:
            self._embeddings.flush(tenant)

    def expire(self) -> None:
        """Now and then: what went unused for too long goes also where nobody asks for it."""
        self._thread.post(self._engine.expire_cache)

    def set_shares(self, parts: Mapping[str, float]) -> None:
        """By tenant, parts of each pool and tier. Raises ValueError if they are more than 1 together."""
        self._embeddings.set_shares(parts)
        self._thread.post(lambda: self._engine.set_cache_shares(parts))
