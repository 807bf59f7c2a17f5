from prometheus_client import CollectorRegistry

from coordinator.cache.cluster_cache import ClusterCache
from coordinator.metrics.caches import CacheCollector
from coordinator.stage_messages import CacheCounters, CachePool
from tests.coordinator.instances import make_instance


def test_counters_of_each_pool() -> None:
    instance = make_instance()
    instance.caches = (
        CacheCounters(CachePool.KV, entries=3, device_bytes=7, hits=5, evictions={"room": 2}, saved_s=1.5),
    )
    registry = CollectorRegistry()
    registry.register(CacheCollector([instance], ClusterCache()))
    where = {"instance_id": "d0", "pool": "kv"}
    for name, labels, value in (
        ("cache_hits_total", {}, 5),
        ("cache_saved_seconds_total", {}, 1.5),
        ("cache_evictions_total", {"cause": "room"}, 2),
        ("cache_entries", {}, 3),
        ("cache_bytes", {"tier": "device"}, 7),
    ):
        assert registry.get_sample_value(f"elasticmm:{name}", where | labels) == value
    assert registry.get_sample_value("elasticmm:cache_index_keys") == 0
