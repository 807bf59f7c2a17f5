import pytest
from prometheus_client import CollectorRegistry

from coordinator.errors import OverloadedError
from coordinator.metrics.requests import RequestMetrics
from coordinator.policy.scheduler import Slo
from coordinator.tenants.labels import TenantLabels
from core.lifecycle import RequestState
from tests.coordinator.ends import make_call, make_end

WHOSE = {"tenant": "default", "modality": "text"}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> RequestMetrics:
    return RequestMetrics(registry, TenantLabels(lambda: ()), Slo(0.5, 0.1))


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"elasticmm:{name}", labels)


def test_a_finished_request_is_counted_and_timed(
    metrics: RequestMetrics, registry: CollectorRegistry
) -> None:
    metrics.on_end(make_end())
    assert value(registry, "request_success_total", **WHOSE, finished_reason="stop") == 1
    assert value(registry, "prompt_tokens_cached_total", **WHOSE) == 4
    assert value(registry, "generation_tokens_total", **WHOSE) == 5
    assert value(registry, "time_to_first_token_seconds_sum", **WHOSE) == 0.5
    assert value(registry, "request_time_per_output_token_seconds_sum", **WHOSE) == pytest.approx(0.1)
    assert value(registry, "request_queue_time_seconds_sum", modality="text") == 0.1
    assert value(registry, "request_prefill_time_seconds_sum", modality="text") == pytest.approx(0.4)
    assert value(registry, "request_encode_time_seconds_count", modality="text") == 0
    assert value(registry, "slo_requests_total", **WHOSE, result="good") == 1


def test_what_did_not_finish_counts_once_by_its_code(
    metrics: RequestMetrics, registry: CollectorRegistry
) -> None:
    metrics.on_end(make_end(state=RequestState.FAILED, finish=None))
    metrics.on_unserved(make_call(OverloadedError("full", 1.0)))
    metrics.on_unserved(make_call(None))
    metrics.on_unserved(make_call(RuntimeError("a bug")))
    codes = ("RESOURCE_EXHAUSTED", "CANCELLED", "UNKNOWN")
    assert [value(registry, "request_failure_total", **WHOSE, code=code) for code in codes] == [1, 1, 1]
    assert value(registry, "slo_requests_total", **WHOSE, result="unserved") == 2
    assert value(registry, "e2e_request_latency_seconds_count", **WHOSE) == 0


def test_the_default_tenant_begins_at_0(metrics: RequestMetrics, registry: CollectorRegistry) -> None:
    assert metrics is not None
    assert value(registry, "slo_requests_total", **WHOSE, result="good") == 0
    assert value(registry, "request_failure_total", **WHOSE, code="INTERNAL") == 0
    assert value(registry, "time_to_first_token_seconds_count", **WHOSE) == 0


def test_a_tenant_that_was_never_served_well_has_an_attainment(
    metrics: RequestMetrics, registry: CollectorRegistry
) -> None:
    metrics.on_end(make_end(tenant="acme", first_token_s=0.8))
    acme = {"tenant": "acme", "modality": "text"}
    results = ("good", "late", "slow", "unserved")
    assert [value(registry, "slo_requests_total", **acme, result=each) for each in results] == [0, 1, 0, 0]
