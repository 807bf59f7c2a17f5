"""What admins order of caches, and what they see."""

from __future__ import annotations

import pytest

from coordinator.cache.admin import CacheStatus
from coordinator.errors import InvalidFieldError
from coordinator.stage_messages import CacheCounters, CachePool, FlushCacheCommand
from coordinator.wire import cache_admin, caches
from elasticmm.v1 import admin_pb2
from elasticmm.v1 import stage_control_pb2 as pb

COUNTERS = CacheCounters(CachePool.EMBEDDING, entries=1, evictions={"room": 10, "flush": 11}, saved_s=13.5)


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
