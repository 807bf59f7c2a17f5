"""What a cache's book counted, as heartbeats carry it."""

from __future__ import annotations

from core.cache.book import CacheBook
from core.cache.entry import Tier
from elasticmm.v1 import stage_control_pb2 as pb
from stage_servers.cache.kv_cache import KvCache


def book_counters(
    pool: pb.CachePool.ValueType,
    book: CacheBook,
    *,
    device_capacity_bytes: int,
    host_capacity_bytes: int,
    lookups: int,
    refused: int = 0,
    pulled: int = 0,
    pulled_bytes: int = 0,
) -> pb.CacheCounters:
    """Any thread: every number is whole, though some may be of a moment later than others.

    `refused`: by the pool, before the book was asked.
    """
    stats = book.stats
    return pb.CacheCounters(
        pool=pool,
        entries=len(book),
        device_bytes=book.used_bytes(Tier.DEVICE),
        host_bytes=book.used_bytes(Tier.HOST),
        device_capacity_bytes=device_capacity_bytes,
        host_capacity_bytes=host_capacity_bytes,
        lookups=lookups,
        hits=stats.hits,
        hit_bytes=stats.hit_bytes,
        stored=stats.stored,
        evictions={"room": stats.dropped_for_room, "age": stats.dropped_by_age, "flush": stats.flushed},
        refused=stats.refused + refused,
        saved_s=stats.seconds_saved,
        demoted=stats.demoted,
        promoted=stats.promoted,
        pulled=pulled,
        pulled_bytes=pulled_bytes,
    )


def kv_counters(cache: KvCache) -> pb.CacheCounters:
    return book_counters(
        pb.CACHE_POOL_KV,
        cache.book,
        device_capacity_bytes=cache.capacity_bytes,
        host_capacity_bytes=cache.host_capacity_bytes,
        lookups=cache.num_lookups,
        pulled=cache.num_pulled,
        pulled_bytes=cache.num_pulled * cache.block_bytes,
    )
