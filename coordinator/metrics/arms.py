"""Metrics of the arms of an experiment; without samples while none runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coordinator.metrics.names import named
from coordinator.slo.arm_report import TrialReport


class ArmCollector(Collector):
    """`report` gives what is known of the experiment that runs, None without one."""

    def __init__(self, report: Callable[[], TrialReport | None]) -> None:
        self._report = report

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            named("arm_requests"),
            "An arm's own requests since the experiment's start: good, late, slow, unserved, crossed.",
            labels=["arm", "result"],
        )
        seconds = CounterMetricFamily(
            named("arm_instance_seconds"),
            "Instance-seconds of the arm since the experiment's start.",
            labels=["arm"],
        )
        instances = GaugeMetricFamily(named("arm_instances"), "Instances of the arm.", labels=["arm"])
        report = self._report()
        for arm in () if report is None else report.arms:
            name = arm.arm.value
            for verdict, count in arm.verdicts.items():
                requests.add_metric([name, verdict.value], count)
            requests.add_metric([name, "crossed"], arm.num_crossed)
            seconds.add_metric([name], arm.instance_s)
            instances.add_metric([name], len(arm.instance_ids))
        yield from (requests, seconds, instances)
