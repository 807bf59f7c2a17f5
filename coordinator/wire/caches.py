"""What instances say of their caches."""

from __future__ import annotations

from coordinator.errors import InvalidFieldError
from coordinator.stage_messages import CacheCounters, CachePool, CacheReport
from core.cache.keys import DIGEST_BYTES
from elasticmm.v1 import stage_control_pb2 as pb

_POOLS = {CachePool.KV: pb.CACHE_POOL_KV, CachePool.EMBEDDING: pb.CACHE_POOL_EMBEDDING}
_POOLS_BACK = {value: pool for pool, value in _POOLS.items()}


def from_pool(pool: CachePool | None) -> pb.CachePool.ValueType:
    return pb.CACHE_POOL_UNSPECIFIED if pool is None else _POOLS[pool]


def to_pool(value: pb.CachePool.ValueType) -> CachePool | None:
    """None for an unspecified one."""
    return _POOLS_BACK.get(value)


def to_cache_report(message: pb.CacheReport) -> CacheReport:
    """Raises InvalidFieldError for keys that are no digests."""
    stored = _to_keys(message.stored, "cache.stored")
    return CacheReport(stored, _to_keys(message.evicted, "cache.evicted"))


def from_counters(counters: CacheCounters) -> pb.CacheCounters:
    return pb.CacheCounters(
        pool=from_pool(counters.pool),
        entries=counters.entries,
        device_bytes=counters.device_bytes,
        host_bytes=counters.host_bytes,
        device_capacity_bytes=counters.device_capacity_bytes,
        host_capacity_bytes=counters.host_capacity_bytes,
        lookups=counters.lookups,
        hits=counters.hits,
        hit_bytes=counters.hit_bytes,
        stored=counters.stored,
        evictions=counters.evictions,
        refused=counters.refused,
        saved_s=counters.saved_s,
        demoted=counters.demoted,
        promoted=counters.promoted,
        pulled=counters.pulled,
        pulled_bytes=counters.pulled_bytes,
    )


def to_counters(message: pb.CacheCounters) -> CacheCounters | None:
    """None for a pool that this version does not know."""
    pool = to_pool(message.pool)
    if pool is None:
        return None
    return CacheCounters(
        pool=pool,
        entries=message.entries,
        device_bytes=message.device_bytes,
        host_bytes=message.host_bytes,
        device_capacity_bytes=message.device_capacity_bytes,
        host_capacity_bytes=message.host_capacity_bytes,
        lookups=message.lookups,
        hits=message.hits,
        hit_bytes=message.hit_bytes,
        stored=message.stored,
        evictions=dict(message.evictions),
        refused=message.refused,
        saved_s=message.saved_s,
        demoted=message.demoted,
        promoted=message.promoted,
        pulled=message.pulled,
        pulled_bytes=message.pulled_bytes,
    )


def _to_keys(packed: bytes, field: str) -> tuple[bytes, ...]:
    if len(packed) % DIGEST_BYTES:
        raise InvalidFieldError(field, f"{len(packed)} bytes are not whole keys of {DIGEST_BYTES}")
    return tuple(packed[at : at + DIGEST_BYTES] for at in range(0, len(packed), DIGEST_BYTES))
