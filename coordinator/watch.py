"""What operators watch of one coordinator: metrics, the SLO report and traces, fed by one observer."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Container, Mapping
from typing import TYPE_CHECKING

from prometheus_client.registry import Collector

from coordinator.listening.connections import GrpcConnections, Port
from coordinator.listening.crowd import Crowd
from coordinator.metrics.crowds import CrowdCollector
from coordinator.metrics.exposition import Metrics
from coordinator.metrics.listener import Admit, MetricsListener
from coordinator.metrics.requests import RequestMetrics
from coordinator.observer import Observers, RequestObserver
from coordinator.policy.scheduler import Slo
from coordinator.registry import Registry
from coordinator.slo.arm_books import ArmBooks
from coordinator.slo.books import SloBooks
from coordinator.tenants.labels import TenantLabels
from core.clock import Clock
from core.version import version

if TYPE_CHECKING:
    from coordinator.tracing.traces import RequestTraces


class Watch:
    """Built before what it watches, which is told of `observer`; collectors are added when they can be."""

    def __init__(
        self,
        slo: Slo,
        clock: Clock,
        *,
        named_tenants: Callable[[], Container[str]],
        price_per_hour: float | None,
        traces: RequestTraces | None = None,
    ) -> None:
        tenants = TenantLabels(named_tenants)
        self.metrics = Metrics()
        self.slo = SloBooks(slo, tenants, clock, price_per_hour=price_per_hour)
        counted = RequestMetrics(self.metrics.registry, tenants, slo)
        self.crowds = CrowdCollector()
        self.add(self.crowds)
        self._traces = traces
        self.arms = ArmBooks(slo, clock)
        self.observer: RequestObserver = Observers(
            counted, self.slo, self.arms, *([traces] if traces else [])
        )
        self._connections = GrpcConnections({})
        self._listener: MetricsListener | None = None

    def add(self, *collectors: Collector) -> None:
        self.metrics.add(collectors)

    async def listen(self, host: str, port: int, admit: Admit, tls: ssl.SSLContext | None) -> int:
        """The port it listens on. Raises OSError where the address cannot be bound."""
        self._listener = MetricsListener(self.metrics.render, admit)
        return await self._listener.start(host, port, tls)

    def watch_ports(self, ports: Mapping[str, Port], most: int, setting: str) -> None:
        """Of gRPC's listeners, by door; before `sample_forever`."""
        doors = {Crowd(door, most, setting, knows_refused=False): port for door, port in ports.items()}
        for crowd in doors:
            self.crowds.watch(crowd)
        self._connections = GrpcConnections(doors)

    async def sample_forever(self, registry: Registry) -> None:
        await asyncio.gather(self.slo.sample_forever(registry), self._connections.watch_forever())

    async def stop(self) -> None:
        """The last traces leave, which takes a few seconds where nobody takes them."""
        if self._listener is not None:
            await self._listener.stop()
        if self._traces is not None:
            await asyncio.to_thread(self._traces.close)


def make_traces(endpoint: str, model_name: str) -> RequestTraces | None:
    """Of requests, sent to that collector; None for no endpoint. Raises ValueError where their package is
    not installed.
    """
    if not endpoint:
        return None
    try:
        from coordinator.tracing.traces import RequestTraces, make_exporter
    except ModuleNotFoundError as error:
        raise ValueError(f"otlp_endpoint: needs elasticmm[tracing] ({error})") from error
    return RequestTraces(make_exporter(endpoint), model_name, version())
