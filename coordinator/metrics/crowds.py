"""Metrics of how full the doors are."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coordinator.listening.crowd import Crowd
from coordinator.metrics.names import named


class CrowdCollector(Collector):
    """Doors are added as they are made."""

    def __init__(self) -> None:
        self._crowds: list[Crowd] = []

    def watch(self, crowd: Crowd) -> Crowd:
        self._crowds.append(crowd)
        return crowd

    def collect(self) -> Iterator[Metric]:
        inside = GaugeMetricFamily(
            named("door_inside"),
            "HTTP connections, gRPC connections, or gRPC calls of clients, at the moment.",
            labels=["door"],
        )
        most = GaugeMetricFamily(
            named("door_limit"),
            "As many HTTP connections, gRPC connections, or gRPC calls of clients, as there may be.",
            labels=["door"],
        )
        refused = CounterMetricFamily(
            named("door_refused"),
            "HTTP connections, or gRPC calls of clients, that were one too many.",
            labels=["door"],
        )
        for crowd in self._crowds:
            inside.add_metric([crowd.name], crowd.num_inside)
            most.add_metric([crowd.name], crowd.most)
            if crowd.knows_refused:
                refused.add_metric([crowd.name], crowd.num_refused)
        yield from (inside, most, refused)
