"""Caches' messages: keys whole or refused, counters both ways, orders to instances."""

from __future__ import annotations

import pytest

from coordinator.cache.admin import CacheStatus
from coordinator.errors import InvalidFieldError
from coordinator.stage_messages import (
    CacheCounters,
    CachePool,
    CacheReport,
    FlushCacheCommand,
    SetCacheSharesCommand,
)
from coordinator.wire import cache_admin, caches
from coordinator.wire.commands import from_command
from elasticmm.v1 import admin_pb2
from elasticmm.v1 import stage_control_pb2 as pb

COUNTERS = CacheCounters(
    CachePool.EMBEDDING,
    entries=1,
    device_bytes=2,
    host_bytes=3,
    device_capacity_bytes=4,
    host_capacity_bytes=5,
    lookups=6,
    hits=7,
    hit_bytes=8,
    stored=9,
    evictions={"room": 10, "flush": 11},
    refused=12,
    saved_s=13.5,
    demoted=14,
    promoted=15,
    pulled=16,
    pulled_bytes=17,
)


@pytest.mark.parametrize("pool", [None, *CachePool])
def test_pools_both_ways(pool: CachePool | None) -> None:
    assert caches.to_pool(caches.from_pool(pool)) is pool


def test_counters_both_ways() -> None:
    assert caches.to_counters(caches.from_counters(COUNTERS)) == COUNTERS
    assert caches.to_counters(pb.CacheCounters(entries=1)) is None


def test_keys_are_whole() -> None:
    one, other = b"a" * 32, b"b" * 32
    assert caches.to_cache_report(pb.CacheReport(stored=one + other)) == CacheReport((one, other))
    for field in ("stored", "evicted"):
        with pytest.raises(InvalidFieldError) as caught:
            caches.to_cache_report(pb.CacheReport(**{field: one[1:]}))
        assert caught.value.field == f"cache.{field}"


def test_orders() -> None:
    flush = from_command(FlushCacheCommand("t", CachePool.KV)).flush_cache
    assert (flush.tenant, flush.pool) == ("t", pb.CACHE_POOL_KV)
    assert from_command(FlushCacheCommand()).flush_cache.pool == pb.CACHE_POOL_UNSPECIFIED
    assert dict(from_command(SetCacheSharesCommand({"t": 0.5})).set_cache_shares.shares) == {"t": 0.5}
    assert from_command(SetCacheSharesCommand({})).WhichOneof("message") == "set_cache_shares"


def test_what_admins_order() -> None:
    request = admin_pb2.FlushCacheRequest(tenant="t", pool=pb.CACHE_POOL_EMBEDDING)
    assert cache_admin.to_flush(request) == FlushCacheCommand("t", CachePool.EMBEDDING)
    assert cache_admin.to_flush(admin_pb2.FlushCacheRequest()) == FlushCacheCommand()
    with pytest.raises(InvalidFieldError):
        cache_admin.to_flush(admin_pb2.FlushCacheRequest(pool=9))  # type: ignore[arg-type]


def test_what_admins_see() -> None:
    message = cache_admin.from_cache_status(CacheStatus((("p0", (COUNTERS,)),), 5, 6))
    assert (message.index_keys, message.index_bytes) == (5, 6)
    assert caches.to_counters(message.instances[0].caches[0]) == COUNTERS
