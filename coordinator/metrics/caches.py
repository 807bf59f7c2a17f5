"""Metrics of the instances' caches, as of their newest heartbeats, read when they are asked for.

Counters begin with the instance's process, so they fall to 0 where one is started anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coordinator.cache.cluster_cache import ClusterCache
from coordinator.metrics.names import named
from coordinator.registry import Instance
from coordinator.stage_messages import CacheCounters

_WHERE = ["instance_id", "pool"]

# By metric: the field of CacheCounters, and what it counts.
_COUNTERS = {
    "cache_lookups": ("lookups", "Requests (pool kv) or media items (embedding) that were looked for."),
    "cache_hits": ("hits", "Blocks or embeddings that were found."),
    "cache_hit_bytes": ("hit_bytes", "Bytes of blocks or embeddings that were found."),
    "cache_stored": ("stored", "Entries that came to be kept."),
    "cache_refused": ("refused", "Entries that could not be kept."),
    "cache_saved_seconds": ("saved_s", "Device time that hits have saved, by the costs of the instance."),
    "cache_demoted": ("demoted", "Entries that moved from the device to the host."),
    "cache_promoted": ("promoted", "Entries that moved from the host to the device."),
    "cache_pulled": ("pulled", "Blocks that were brought from another instance."),
    "cache_pulled_bytes": ("pulled_bytes", "Bytes of blocks that were brought from another instance."),
}
_TIERS = {
    "cache_bytes": ("Bytes that the cache holds.", "device_bytes", "host_bytes"),
    "cache_capacity_bytes": (
        "Bytes that the cache may hold.",
        "device_capacity_bytes",
        "host_capacity_bytes",
    ),
}


class CacheCollector(Collector):
    def __init__(self, instances: Iterable[Instance], index: ClusterCache) -> None:
        self._instances = instances
        self._index = index

    def collect(self) -> Iterator[Metric]:
        pools = [
            ([each.instance_id, counters.pool.value], counters)
            for each in self._instances
            for counters in each.caches
        ]
        yield from _counted(pools)
        yield _evictions(pools)
        yield from _held(pools)
        yield GaugeMetricFamily(
            named("cache_index_keys"), "Cached entries that the coordinator knows of.", self._index.num_keys
        )
        yield GaugeMetricFamily(
            named("cache_index_bytes"), "Memory of the coordinator's index of caches.", self._index.size_bytes
        )


Pools = list[tuple[list[str], CacheCounters]]


def _counted(pools: Pools) -> Iterator[Metric]:
    for name, (field, words) in _COUNTERS.items():
        family = CounterMetricFamily(named(name), words, labels=_WHERE)
        for where, counters in pools:
            family.add_metric(where, getattr(counters, field))
        yield family


def _evictions(pools: Pools) -> Metric:
    words = "Entries that are kept no more, by cause: room, age, flush."
    family = CounterMetricFamily(named("cache_evictions"), words, labels=[*_WHERE, "cause"])
    for where, counters in pools:
        for cause, number in counters.evictions.items():
            family.add_metric([*where, cause], number)
    return family


def _held(pools: Pools) -> Iterator[Metric]:
    entries = GaugeMetricFamily(named("cache_entries"), "Entries that the cache holds.", labels=_WHERE)
    for where, counters in pools:
        entries.add_metric(where, counters.entries)
    yield entries
    for name, (words, device, host) in _TIERS.items():
        family = GaugeMetricFamily(named(name), words, labels=[*_WHERE, "tier"])
        for where, counters in pools:
            family.add_metric([*where, "device"], getattr(counters, device))
            family.add_metric([*where, "host"], getattr(counters, host))
        yield family
