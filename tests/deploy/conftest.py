"""What a coordinator, and a door in front of it, tell Prometheus, by name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from coordinator.config import CoordinatorConfig
from coordinator.front.metrics import FrontMetrics
from coordinator.server import Coordinator

SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


@pytest.fixture
async def metrics() -> AsyncIterator[list[Metric]]:
    """Every metric, without samples for the most part."""
    folder = Path("models/demo/checkpoint")
    coordinator = Coordinator(
        CoordinatorConfig(folder, "a token", start_gateway=False, shutdown_grace_s=0.05)
    )
    await coordinator.start()
    in_front = CollectorRegistry()
    FrontMetrics(in_front)
    yield [*coordinator.watch.metrics.registry.collect(), *in_front.collect()]
    await coordinator.stop()


@pytest.fixture
def sample_names(metrics: list[Metric]) -> set[str]:
    """Names that queries may use."""
    return {metric.name + suffix for metric in metrics for suffix in SUFFIXES[metric.type]}
