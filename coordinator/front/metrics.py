"""Metrics of one worker in front of a coordinator; those of all workers are summed where they are read."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from coordinator.errors import ServiceError
from coordinator.front.upstream import Upstream
from coordinator.metrics.names import named
from coordinator.wire.status import code_of

_FIRST_BYTE_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
_OF_ALL: Final = "livesum"  # of the workers that live


class FrontMetrics:
    """Told by the door and by what is around its pages; once a request, never once a token."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            named("http_requests"),
            "Requests that ended, by path and HTTP status; 499: the client went before it was answered.",
            ("path", "code"),
            registry=registry,
        )
        self._in_flight = Gauge(
            named("http_requests_in_flight"),
            "Requests whose answer is not told to its end.",
            registry=registry,
            multiprocess_mode=_OF_ALL,
        )
        self._first_byte = Histogram(
            named("http_time_to_first_byte_seconds"),
            "From a request's head to the first byte of its answer's body.",
            ("path",),
            registry=registry,
            buckets=_FIRST_BYTE_S,
        )
        self._workers = Gauge(
            named("http_workers"),
            "Worker processes, by how the coordinator stands for them.",
            ("coordinator",),
            registry=registry,
            multiprocess_mode=_OF_ALL,
        )
        self._losses = Counter(
            named("http_coordinator_losses"), "Times that a worker lost the coordinator.", registry=registry
        )
        self._failures = Counter(
            named("http_coordinator_failures"),
            "Calls to the coordinator that failed, by gRPC status.",
            ("code",),
            registry=registry,
        )
        self._refused = Counter(
            named("http_refused"),
            "Callers who found their worker's connections at the bound.",
            registry=registry,
        )
        self._upstream = Upstream.LOST
        self._show_upstream()

    def begin(self) -> None:
        """A request; `end` once for each."""
        self._in_flight.inc()

    def note_first_byte(self, path: str, took_s: float) -> None:
        self._first_byte.labels(path).observe(took_s)

    def end(self, path: str, status: int) -> None:
        self._in_flight.dec()
        self._requests.labels(path, str(status)).inc()

    def note_upstream(self, upstream: Upstream) -> None:
        if upstream is Upstream.LOST and self._upstream is not Upstream.LOST:
            self._losses.inc()
        self._upstream = upstream
        self._show_upstream()

    def note_failure(self, error: ServiceError) -> None:
        self._failures.labels(code_of(error).name).inc()

    def note_refusal(self) -> None:
        """Of a connection, or of a call on one past the bound; no page hears of it."""
        self._refused.inc()

    def _show_upstream(self) -> None:
        for each in Upstream:
            self._workers.labels(each.value).set(each is self._upstream)
