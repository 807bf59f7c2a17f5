"""Metrics of requests, told when each ends."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from coordinator.errors import ServiceError
from coordinator.events import StageSpan
from coordinator.metrics.names import named
from coordinator.observer import CallEnd, RequestEnd
from coordinator.policy.scheduler import Slo
from coordinator.slo.verdict import Verdict, verdict_of_call, verdict_of_end
from coordinator.tenants.labels import TenantLabels
from coordinator.tenants.settings import DEFAULT_TENANT
from coordinator.wire.status import code_of
from core.lifecycle import RequestState
from core.sequence import FinishReason
from core.stages import ModalityGroup, Stage

_REQUEST_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0)
_FIRST_TOKEN_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
_PER_TOKEN_S = (0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
_PART_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)

_WHOSE = ("tenant", "modality")
_OWN_CODES = ("INTERNAL", "UNKNOWN", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED")


class RequestMetrics:
    """Counts what it observes into `registry`.

    A rate misses what a series begins with. So those of the default tenant are there before its first
    request, and with a tenant's first call all that its ratios and the alerts are made of.
    """

    def __init__(self, registry: CollectorRegistry, tenants: TenantLabels, slo: Slo) -> None:
        self._tenants = tenants
        self._slo = slo
        self._known: set[tuple[str, str]] = set()
        self._count_requests(registry)
        self._time_requests(registry)
        for group in (ModalityGroup.TEXT, ModalityGroup.MULTIMODAL):
            self._begin(group.value)

    def on_end(self, end: RequestEnd) -> None:
        whose = self._whose(end)
        if end.state is not RequestState.FINISHED:
            return
        assert end.finish is not None
        self._finished.labels(*whose, end.finish.value).inc()
        self._judge(whose, verdict_of_end(end, self._slo))
        self._count_tokens(end, whose)
        self._time(end, whose)

    def on_unserved(self, call: CallEnd) -> None:
        whose = self._whose(call)
        code = "CANCELLED" if call.error is None else _code_of(call.error)
        self._failed.labels(*whose, code).inc()
        self._judge(whose, verdict_of_call(call))

    def _count_requests(self, registry: CollectorRegistry) -> None:
        def counter(name: str, words: str, *labels: str) -> Counter:
            return Counter(named(name), words, (*_WHOSE, *labels), registry=registry)

        self._finished = counter("request_success", "Requests that finished, by reason.", "finished_reason")
        self._failed = counter("request_failure", "Calls without a whole answer, by gRPC status.", "code")
        self._judged = counter(
            "slo_requests", "Calls that count for the SLO: good, late, slow, unserved.", "result"
        )
        self._prompt = counter("prompt_tokens", "Tokens of prompts, media tokens included.")
        self._cached = counter("prompt_tokens_cached", "Tokens of prompts that came from a cache.")
        self._media = counter("media_tokens", "Tokens of prompts that stand for media.")
        self._outputs = counter("generation_tokens", "Tokens of answers.")
        self._repeated = counter("request_dispatches", "Dispatches of finished requests, repeated ones too.")
        self._moves = counter("request_moves", "Moves of finished requests between decoding instances.")
        targets = Gauge(
            named("slo_target_seconds"),
            "Targets in force, by kind: ttft, tpot.",
            ("kind", "modality"),
            registry=registry,
        )
        for group in (ModalityGroup.TEXT, ModalityGroup.MULTIMODAL):
            targets.labels("ttft", group.value).set(self._slo.group_ttft_s(group))
            targets.labels("tpot", group.value).set(self._slo.tpot_s)

    def _time_requests(self, registry: CollectorRegistry) -> None:
        def histogram(name: str, words: str, labels: Iterable[str], buckets: tuple[float, ...]) -> Histogram:
            return Histogram(named(name), words, tuple(labels), buckets=buckets, registry=registry)

        self._took = histogram(
            "e2e_request_latency_seconds", "Time from arrival to the last token.", _WHOSE, _REQUEST_S
        )
        self._first = histogram(
            "time_to_first_token_seconds", "Time from arrival to the first token.", _WHOSE, _FIRST_TOKEN_S
        )
        self._per_token = histogram(
            "request_time_per_output_token_seconds",
            "Mean time of a request's tokens after the first.",
            _WHOSE,
            _PER_TOKEN_S,
        )
        only = _WHOSE[1:]
        self._queued = histogram(
            "request_queue_time_seconds", "Time from arrival to the first dispatch.", only, _PART_S
        )
        self._stages = {
            stage: histogram(
                f"request_{stage.name.lower()}_time_seconds",
                f"Time from the start of the first {stage.name.lower()} to the end of the last.",
                only,
                _PART_S if stage is not Stage.DECODE else _REQUEST_S,
            )
            for stage in Stage
        }

    def _begin(self, modality: str) -> None:
        whose = (DEFAULT_TENANT, modality)
        self._show(whose)
        counters = (self._prompt, self._cached, self._media, self._outputs, self._repeated, self._moves)
        for metric in (*counters, self._took, self._first, self._per_token):
            metric.labels(*whose)
        for histogram in (self._queued, *self._stages.values()):
            histogram.labels(modality)

    def _show(self, whose: tuple[str, str]) -> None:
        self._known.add(whose)
        for verdict in Verdict:
            self._judged.labels(*whose, verdict.value)
        for reason in FinishReason:
            self._finished.labels(*whose, reason.value)
        for code in _OWN_CODES:
            self._failed.labels(*whose, code)

    def _whose(self, end: RequestEnd | CallEnd) -> tuple[str, str]:
        whose = self._tenants.of(end.tenant), end.group.value
        if whose not in self._known:
            self._show(whose)
        return whose

    def _judge(self, whose: tuple[str, str], verdict: Verdict | None) -> None:
        if verdict is not None:
            self._judged.labels(*whose, verdict.value).inc()

    def _count_tokens(self, end: RequestEnd, whose: tuple[str, str]) -> None:
        self._prompt.labels(*whose).inc(end.usage.prompt_tokens)
        self._cached.labels(*whose).inc(end.usage.cached_tokens)
        self._media.labels(*whose).inc(end.usage.media_tokens)
        self._outputs.labels(*whose).inc(end.usage.completion_tokens)
        self._repeated.labels(*whose).inc(end.num_dispatches)
        self._moves.labels(*whose).inc(end.num_moves)

    def _time(self, end: RequestEnd, whose: tuple[str, str]) -> None:
        self._took.labels(*whose).observe(end.took_s)
        if end.first_token_s is not None:
            self._first.labels(*whose).observe(end.first_token_s)
        if end.per_token_s is not None:
            self._per_token.labels(*whose).observe(end.per_token_s)
        if end.queued_s is not None:
            self._queued.labels(end.group.value).observe(end.queued_s)
        for stage, histogram in self._stages.items():
            spans = [span for span in end.spans if span.stage is stage]
            if spans:
                histogram.labels(end.group.value).observe(_length_s(spans))


def _length_s(spans: list[StageSpan]) -> float:
    return (max(span.end_ms for span in spans) - min(span.start_ms for span in spans)) / 1e3


def _code_of(error: Exception) -> str:
    return str(code_of(error).name) if isinstance(error, ServiceError) else "UNKNOWN"
