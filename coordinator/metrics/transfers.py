"""Metrics of what instances sent each other, as of their newest heartbeats, read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coordinator.metrics.names import named
from coordinator.registry import Instance
from coordinator.stage_messages import TransferCounters

_PAIR = ["instance_id", "peer_id", "transport"]

Sent = list[tuple[list[str], TransferCounters]]


class TransferCollector(Collector):
    """Instances are named by the sender; transport "" is of what failed before one was chosen."""

    def __init__(self, instances: Iterable[Instance]) -> None:
        self._instances = instances

    def collect(self) -> Iterator[Metric]:
        sent = [
            ([each.instance_id, counters.peer_instance_id, counters.transport], counters)
            for each in self._instances
            for counters in each.transfers
        ]
        yield _outcomes(sent)
        yield _failures(sent)
        size = CounterMetricFamily(named("transfer_bytes"), "Bytes of transfers that arrived.", labels=_PAIR)
        seconds = CounterMetricFamily(
            named("transfer_seconds"), "Time that transfers took, added up.", labels=_PAIR
        )
        running = GaugeMetricFamily(named("transfers_in_flight"), "Transfers under way.", labels=_PAIR)
        for pair, counters in sent:
            size.add_metric(pair, counters.size_bytes)
            seconds.add_metric(pair, counters.seconds)
            running.add_metric(pair, counters.in_flight)
        yield from (size, seconds, running)


def _outcomes(sent: Sent) -> Metric:
    family = CounterMetricFamily(
        named("transfers"), "Transfers that ended, by outcome.", labels=[*_PAIR, "outcome"]
    )
    for pair, counters in sent:
        family.add_metric([*pair, "committed"], counters.committed)
        family.add_metric([*pair, "aborted"], counters.aborted)
    return family


def _failures(sent: Sent) -> Metric:
    family = CounterMetricFamily(
        named("transfer_failures"), "Transfers that failed, by cause.", labels=[*_PAIR, "cause"]
    )
    for pair, counters in sent:
        for cause, number in counters.failures.items():
            family.add_metric([*pair, cause], number)
    return family
