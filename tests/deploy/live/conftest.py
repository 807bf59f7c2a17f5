"""A cluster over three processes, watched as operators would watch it, and some load."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from elasticmm_client import InvalidRequest
from tests.coordinator.conftest import free_port
from tests.deploy.prometheus import Prometheus, prometheus
from tests.integration.running import CLI, Running, cluster
from tests.otlp import Collector, collecting

MODEL = Path("models/demo/checkpoint")
# Per call of `bench`; the last one finds in caches what the first one left there.
LOADS = (
    ("--pictures", "1", "--seed", "1"),
    ("--pictures", "2", "--door", "http", "--seed", "2"),
    ("--seed", "3"),
    ("--pictures", "1", "--seed", "1"),
)
SHORT = ("--requests", "12", "--concurrency", "4", "--prompt-tokens", "24", "--max-tokens", "12")
FINISHED = "sum(elasticmm:request_success_total)"
REFUSED = 'sum(elasticmm:request_failure_total{code="INVALID_ARGUMENT"})'
SLOW = ("--slo", "60,10")  # targets that a busy machine meets, too


@dataclass(frozen=True, slots=True)
class Watched:
    """What Prometheus knows of a cluster that has had its load."""

    running: Running
    prometheus: Prometheus
    num_requests: int
    start_s: float  # Unix time: the first request
    end_s: float


@pytest.fixture(scope="session")
def metrics_port() -> int:
    return free_port()


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    with collecting() as started:
        yield started


@pytest.fixture(scope="session")
def running(
    tmp_path_factory: pytest.TempPathFactory, metrics_port: int, collector: Collector
) -> Iterator[Running]:
    options = ("--metrics-port", str(metrics_port), "--otlp-endpoint", collector.endpoint, *SLOW)
    with cluster(tmp_path_factory.mktemp("watched"), MODEL, "e1p1d1", *options) as started:
        yield started
        started.assert_idle()


@pytest.fixture(scope="session")
def watched(
    running: Running, metrics_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    with prometheus(tmp_path_factory.mktemp("prometheus"), f"127.0.0.1:{metrics_port}") as started:
        started.wait_until(lambda: started.value("elasticmm:ready") == 1)
        start_s = time.time()
        refuse(running)  # a rate sees the second one: before the first there was no such series
        started.wait_until(lambda: bool(started.value(REFUSED)))
        num_requests = int(started.value(FINISHED) or 0) + load(running)
        started.wait_until(lambda: started.value(FINISHED) == num_requests)
        running.assert_idle()
        settle(started)
        yield Watched(running, started, num_requests, start_s, time.time())


def load(running: Running) -> int:
    """Requests of both doors with and without pictures, one that is refused, and caches that are emptied."""
    where = ("--state-dir", str(running.state_dir))
    for words in LOADS:
        door = ("--url", running.http) if "http" in words else ()
        subprocess.run([*CLI, "bench", *SHORT, *words, *door, *where, "--json"], check=True, timeout=120)
    refuse(running)
    subprocess.run([*CLI, "cache", "flush", *where], check=True, timeout=60)
    return len(LOADS) * int(SHORT[1])


def refuse(running: Running) -> None:
    with pytest.raises(InvalidRequest):
        running.client.generate("too many", max_tokens=10**6).result()


def settle(prometheus: Prometheus) -> None:
    """Two more scrapes once caches are seen to be empty: rates need that."""
    prometheus.wait_until(
        lambda: bool(prometheus.value('sum(elasticmm:cache_evictions_total{cause="flush"})'))
    )
    seen_s = prometheus.value("max(timestamp(elasticmm:ready))") or 0.0
    prometheus.wait_until(lambda: (prometheus.value("max(timestamp(elasticmm:ready))") or 0.0) >= seen_s + 2)
