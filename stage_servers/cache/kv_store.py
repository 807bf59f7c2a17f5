"""The KV cache for pulls and pushes: sequences in, whole blocks out."""

from __future__ import annotations

from collections.abc import Sequence

from core.sequence import SequenceSpec
from stage_servers.cache.exchange import PrefixExchange
from stage_servers.cache.kv_cache import KvCache
from stage_servers.cache.prefix import PinnedPrefix
from stage_servers.cache.prefix_store import WantedPrefix


class KvPrefixStore:
    """Implements PrefixStore; used on the engine thread."""

    def __init__(self, cache: KvCache) -> None:
        self._cache = cache
        self._exchange = PrefixExchange(cache)

    def wanted(self, spec: SequenceSpec, num_tokens: int) -> WantedPrefix | None:
        prefix = self._cache.begin(spec)
        if prefix is None:
            return None
        tokens = (*spec.prompt, *spec.outputs)
        num_here, keys = self._exchange.missing(prefix, tokens, num_tokens, self._cache.block_tokens)
        if not keys:
            return None
        seconds, num_missing = self._cache.seconds, len(keys) * self._cache.block_tokens
        compute_s = seconds.of(num_missing, num_here) if seconds.is_measured else None
        return WantedPrefix(spec, tuple(keys), num_here, compute_s, prefix)

    def adopt(self, wanted: WantedPrefix, blocks: Sequence[int]) -> None:
        assert wanted.prefix is not None
        spec = wanted.spec
        self._exchange.adopt(wanted.prefix, (*spec.prompt, *spec.outputs), blocks, wanted.first_token)

    def pin(self, keys: Sequence[bytes]) -> PinnedPrefix | None:
        return self._exchange.pinned(keys)

    def unpin(self, pinned: PinnedPrefix) -> None:
        self._exchange.unpin(pinned)
