"""Metrics of the cluster as a whole, read when they are asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coordinator.cluster import Cluster
from coordinator.dispatcher import Dispatcher
from coordinator.metrics.names import named
from coordinator.planner import Planner
from coordinator.policy.decisions import DecisionRing
from core.lifecycle import RequestState
from core.stages import ModalityGroup

_AT_REST = ("serving", "draining", "drained")  # of an instance's state in the plan


class ClusterCollector(Collector):
    """Requests that are here, plans and decisions. `num_waiting` counts calls that are being prepared too."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        cluster: Cluster,
        planner: Planner,
        decisions: DecisionRing,
        num_waiting: Callable[[], int],
    ) -> None:
        self._dispatcher = dispatcher
        self._cluster = cluster
        self._planner = planner
        self._decisions = decisions
        self._num_waiting = num_waiting

    def collect(self) -> Iterator[Metric]:
        yield from self._requests()
        yield from self._plan()
        decisions = CounterMetricFamily(
            named("policy_decisions"), "Decisions of the policies.", labels=["piece"]
        )
        for piece, number in self._decisions.counts.items():
            decisions.add_metric([piece], number)
        yield decisions

    def _requests(self) -> Iterator[Metric]:
        running, waiting = Counter[ModalityGroup](), Counter[ModalityGroup]()
        for request in self._dispatcher.requests():
            if request.state is RequestState.QUEUED:
                waiting[request.group] += 1
            elif request.is_running:
                running[request.group] += 1
        counts = {
            "num_requests_running": ("Requests that instances work on.", running),
            "num_requests_waiting": ("Requests that wait for dispatch.", waiting),
        }
        for name, (words, numbers) in counts.items():
            family = GaugeMetricFamily(named(name), words, labels=["modality"])
            for group in (ModalityGroup.TEXT, ModalityGroup.MULTIMODAL):
                family.add_metric([group.value], numbers[group])
            yield family
        preparing = self._num_waiting() - waiting.total()
        yield GaugeMetricFamily(
            named("num_requests_preparing"), "Calls whose prompt or media are being prepared.", preparing
        )

    def _plan(self) -> Iterator[Metric]:
        status = self._planner.status()
        transitions = CounterMetricFamily(
            named("transitions"), "Instances' changes of stages or group, by outcome.", labels=["outcome"]
        )
        transitions.add_metric(["done"], status.num_done)
        transitions.add_metric(["rolled_back"], status.num_rolled_back)
        yield transitions
        yield GaugeMetricFamily(
            named("transitions_running"),
            "Instances that change their stages or group now.",
            sum(each.state not in _AT_REST for each in status.instances),
        )
        yield GaugeMetricFamily(
            named("instances_drained"),
            "Instances that admins have taken out of service.",
            sum(each.is_drained for each in status.instances),
        )
        yield GaugeMetricFamily(
            named("instances_missing"), "Instances that the topology waits for.", self._cluster.num_missing
        )
        ready = "1 if encode, prefill and decode are all played."
        yield GaugeMetricFamily(named("ready"), ready, float(self._cluster.is_ready))
