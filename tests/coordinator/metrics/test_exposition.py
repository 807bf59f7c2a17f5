"""What scrapers of either format read, by the readers that they use."""

from __future__ import annotations

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open
from prometheus_client.parser import text_string_to_metric_families as read_plain

from coordinator.metrics.exposition import Metrics
from coordinator.metrics.requests import RequestMetrics
from coordinator.policy.scheduler import Slo
from coordinator.tenants.labels import TenantLabels
from tests.coordinator.conftest import MakeBench
from tests.coordinator.ends import make_end
from tests.deploy.promtool import lint, needs_promtool

OPEN = "application/openmetrics-text"
# As Prometheus 2 and 3 ask.
PROMETHEUS_2 = f"{OPEN};version=1.0.0,{OPEN};version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
PROMETHEUS_3 = f"{OPEN};version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=1.0.0;q=0.4"


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics()
    RequestMetrics(metrics.registry, TenantLabels(lambda: ()), Slo(0.5, 0.1)).on_end(make_end())
    return metrics


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain;version=0.0.4", PROMETHEUS_2, PROMETHEUS_3])
def test_samples_have_the_names_that_queries_ask_for(metrics: Metrics, accept: str) -> None:
    content_type, body = metrics.render(accept)
    assert content_type.startswith(OPEN) == (OPEN in accept)
    families = list((read_open if OPEN in accept else read_plain)(body.decode()))
    samples = [sample for family in families for sample in family.samples]
    assert "elasticmm:request_success_total" in {sample.name for sample in samples}
    assert {sample.name.partition(":")[0] for sample in samples} == {"elasticmm"}


@pytest.mark.parametrize("accept", ["", PROMETHEUS_2])
def test_no_series_of_when_counters_began(metrics: Metrics, accept: str) -> None:
    assert b"_created" not in metrics.render(accept)[1]


@needs_promtool
async def test_the_linter_finds_colons_and_nothing_else(make_bench: MakeBench) -> None:
    """Colons are vLLM's way, which dashboards of the field are made for."""
    bench = await make_bench("e", "p", "d")
    await bench.ask(max_tokens=3)
    found = lint(bench.coordinator.watch.metrics.render()[1].decode())
    assert len(found) > 30
    assert [each for each in found if not each.endswith(" metric names should not contain ':'")] == []
