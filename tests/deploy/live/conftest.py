"""A cluster over three processes, watched as operators would watch it, and some load."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from elasticmm_client import InvalidRequest
from tests.deploy.prometheus import Prometheus, prometheus
from tests.integration.fronts import serve_http, wait_ready
from tests.integration.running import CLI, Running, cluster
from tests.otlp import Collector, collecting
from tests.ports import free_port

MODEL = Path("models/demo/checkpoint")
# Per call of `bench`, its door first; the last one finds in caches what the first one left there.
LOADS = (
    ("grpc", "--pictures", "1", "--seed", "1"),
    ("http", "--pictures", "2", "--seed", "2"),
    ("front", "--pictures", "1", "--seed", "4"),
    ("grpc", "--seed", "3"),
    ("grpc", "--pictures", "1", "--seed", "1"),
)
SHORT = ("--requests", "12", "--concurrency", "4", "--prompt-tokens", "24", "--max-tokens", "12")
FINISHED = "sum(elasticmm:request_success_total)"
REFUSED = 'sum(elasticmm:request_failure_total{code="INVALID_ARGUMENT"})'
REFUSED_IN_FRONT = 'sum(elasticmm:http_coordinator_failures_total{code="INVALID_ARGUMENT"})'
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
def front_port() -> int:
    return free_port()


@pytest.fixture(scope="session")
def front(running: Running, front_port: int) -> Iterator[str]:
    """URL of a door in front, of two workers."""
    words = ("--address", running.address, "--workers", "2", "--metrics-port", str(front_port))
    with serve_http(*words) as started:
        wait_ready(started.url)
        yield started.url


@pytest.fixture(scope="session")
def watched(
    running: Running,
    front: str,
    metrics_port: int,
    front_port: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Watched]:
    targets = (f"127.0.0.1:{metrics_port}", f"127.0.0.1:{front_port}")
    with prometheus(tmp_path_factory.mktemp("prometheus"), *targets) as started:
        started.wait_until(lambda: started.value("elasticmm:ready") == 1)
        started.wait_until(lambda: started.value('elasticmm:http_workers{coordinator="ready"}') == 2)
        start_s = time.time()
        # A rate sees the second one: before the first there was no such series.
        refuse(running, front)
        started.wait_until(lambda: bool(started.value(REFUSED)) and bool(started.value(REFUSED_IN_FRONT)))
        num_requests = int(started.value(FINISHED) or 0) + load(running, front)
        started.wait_until(lambda: started.value(FINISHED) == num_requests)
        running.assert_idle()
        settle(started)
        yield Watched(running, started, num_requests, start_s, time.time())


def load(running: Running, front: str) -> int:
    """Requests of all doors with and without pictures, some that are refused, and caches that are emptied."""
    where = ("--state-dir", str(running.state_dir))
    urls = {"http": running.http, "front": front}
    for door, *words in LOADS:
        if door in urls:
            words += ["--door", "http", "--url", urls[door]]
        subprocess.run([*CLI, "bench", *SHORT, *words, *where, "--json"], check=True, timeout=120)
    refuse(running, front)
    subprocess.run([*CLI, "cache", "flush", *where], check=True, timeout=60)
    return len(LOADS) * int(SHORT[1])


def refuse(running: Running, front: str) -> None:
    """By gRPC, and by the door in front."""
    body = {"model": "checkpoint", "prompt": "too many", "max_tokens": 10**6}
    assert httpx.post(f"{front}/v1/completions", json=body, timeout=60).status_code == 400
    with pytest.raises(InvalidRequest):
        running.client.generate("too many", max_tokens=10**6).result()


def settle(prometheus: Prometheus) -> None:
    """Two more scrapes once caches are seen to be empty: rates need that."""
    prometheus.wait_until(
        lambda: bool(prometheus.value('sum(elasticmm:cache_evictions_total{cause="flush"})'))
    )
    seen_s = prometheus.value("max(timestamp(elasticmm:ready))") or 0.0
    prometheus.wait_until(lambda: (prometheus.value("max(timestamp(elasticmm:ready))") or 0.0) >= seen_s + 2)
