"""How full caches are and what they are good for, as `elasticmm status` shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elasticmm_client.caches import ClusterCache

_MIB = 1 << 20
_WORDS = {"kv": "KV", "embedding": "embeddings"}


@dataclass(frozen=True, slots=True)
class PoolTotals:
    """Over all instances."""

    pool: str  # "kv" or "embedding"
    entries: int
    size_bytes: int  # on devices and hosts
    lookups: int
    hits: int
    saved_s: float

    @property
    def words(self) -> str:
        return (
            f"{_WORDS[self.pool]} {self.entries} in {self.size_bytes / _MIB:.1f} MiB, "
            f"{self.hits} hits in {self.lookups} look-ups, {self.saved_s:.1f} s saved"
        )


def totals(cache: ClusterCache) -> tuple[PoolTotals, ...]:
    return tuple(_of_pool(cache, pool) for pool in _WORDS)


def cache_summary(cache: ClusterCache) -> str | None:
    """One line over all instances; None where no cache has been looked into or keeps anything."""
    found = [each.words for each in totals(cache) if each.lookups or each.entries]
    return f"caches: {'; '.join(found)}" if found else None


def _of_pool(cache: ClusterCache, pool: str) -> PoolTotals:
    caches = [each for instance in cache.instances for each in instance.pools if each.pool == pool]
    return PoolTotals(
        pool,
        entries=sum(each.entries for each in caches),
        size_bytes=sum(each.device_bytes + each.host_bytes for each in caches),
        lookups=sum(each.lookups for each in caches),
        hits=sum(each.hits for each in caches),
        saved_s=sum(each.saved_s for each in caches),
    )
