"""How full caches are and what they are good for, as `elasticmm status` shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elasticmm_client.caches import ClusterCache

_MIB = 1 << 20


def cache_summary(cache: ClusterCache) -> str | None:
    """One line over all instances; None where no cache has been looked into or keeps anything."""
    parts = (_of_pool(cache, pool, words) for pool, words in (("kv", "KV"), ("embedding", "embeddings")))
    found = [part for part in parts if part is not None]
    return f"caches: {'; '.join(found)}" if found else None


def _of_pool(cache: ClusterCache, pool: str, words: str) -> str | None:
    caches = [each for instance in cache.instances for each in instance.pools if each.pool == pool]
    lookups, entries = (sum(getattr(each, name) for each in caches) for name in ("lookups", "entries"))
    if not lookups and not entries:
        return None
    size_mib = sum(each.device_bytes + each.host_bytes for each in caches) / _MIB
    hits, saved_s = sum(each.hits for each in caches), sum(each.saved_s for each in caches)
    return (
        f"{words} {entries} in {size_mib:.1f} MiB, {hits} hits in {lookups} look-ups, {saved_s:.1f} s saved"
    )
