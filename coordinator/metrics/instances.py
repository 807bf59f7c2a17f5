"""Metrics of every attached instance, as of its newest heartbeat, read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coordinator.cluster import InstanceStatus
from coordinator.metrics.names import named
from core.stages import Stage, roles_name

_KINDS = {
    "encode_items": ("Media items on an instance, by state: waiting, running.", "state"),
    "sequences": ("Sequences on an instance, by stage.", "stage"),
    "kv_blocks": ("Blocks of KV, by state: free, used.", "state"),
    "embedding_blocks": ("Blocks of embeddings, by state: free, used.", "state"),
}
_PLAIN = {
    "instance_requests": "Requests dispatched here and not finished.",
    "instance_silence_seconds": "Time since the instance was last heard of.",
    "prefill_waiting_tokens": "Tokens that wait for prefill.",
    "kv_cache_usage_perc": "Part of the KV blocks in use, 1 is all.",
    "leases": "Reservations of blocks for transfers.",
    "quarantined_blocks": "Blocks of ended leases, kept until surely nobody writes to them.",
}


class InstanceCollector(Collector):
    """`status` gives all attached instances."""

    def __init__(self, status: Callable[[], tuple[InstanceStatus, ...]]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        instances = self._status()
        yield _infos(instances)
        yield _roles(instances)
        for name, (words, label) in _KINDS.items():
            family = GaugeMetricFamily(named(name), words, labels=["instance_id", label])
            for each in instances:
                for value, number in _by_kind(each)[name].items():
                    family.add_metric([each.info.instance_id, value], number)
            yield family
        for name, words in _PLAIN.items():
            family = GaugeMetricFamily(named(name), words, labels=["instance_id"])
            for each in instances:
                family.add_metric([each.info.instance_id], _plain(each)[name])
            yield family


def _infos(instances: tuple[InstanceStatus, ...]) -> Metric:
    labels = ["instance_id", "modality", "roles", "device", "dtype", "host_id"]
    family = GaugeMetricFamily(named("instance_info"), "1 for every attached instance.", labels=labels)
    for each in instances:
        info = each.info
        values = [info.instance_id, info.group.value, roles_name(info.roles)]
        family.add_metric([*values, info.device, info.dtype, info.host_id], 1)
    return family


def _roles(instances: tuple[InstanceStatus, ...]) -> Metric:
    labels = ["instance_id", "modality", "stage"]
    family = GaugeMetricFamily(
        named("instance_role"), "1 for every stage that an instance plays.", labels=labels
    )
    for each in instances:
        for stage in Stage:
            if stage in each.info.roles:
                values = [each.info.instance_id, each.info.group.value, stage.name.lower()]
                family.add_metric(values, 1)
    return family


def _by_kind(status: InstanceStatus) -> dict[str, dict[str, float]]:
    info, load = status.info, status.load
    return {
        "encode_items": {"waiting": load.encode_waiting, "running": load.encode_running},
        "sequences": {"prefill": load.sequences_prefilling, "decode": load.sequences_decoding},
        "kv_blocks": _split(load.free_kv_blocks, info.total_kv_blocks),
        "embedding_blocks": _split(load.free_embedding_blocks, info.total_embedding_blocks),
    }


def _split(free: int, total: int) -> dict[str, float]:
    return {"free": free, "used": max(0, total - free)}


def _plain(status: InstanceStatus) -> dict[str, float]:
    load, total = status.load, status.info.total_kv_blocks
    return {
        "instance_requests": status.num_requests,
        "instance_silence_seconds": status.last_heartbeat_s,
        "prefill_waiting_tokens": load.prefill_waiting_tokens,
        "kv_cache_usage_perc": 1 - load.free_kv_blocks / total if total else 0.0,
        "leases": load.leases,
        "quarantined_blocks": load.quarantined_blocks,
    }
