"""Every query of the dashboard and every alert, in a real Prometheus over a cluster that works."""

from __future__ import annotations

import math

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.documented import documented
from tests.deploy.grafana import ALL, Query, choice, queries, variables
from tests.deploy.live.conftest import FINISHED, REFUSED, Watched
from tests.deploy.prometheus import RATE_INTERVAL, Series, needs_prometheus
from tests.deploy.promtool import lint, needs_promtool

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300), needs_prometheus]

QUERIES = list(queries())
EMPTY = {"Failures, {{cause}}"}  # no transfer failed, so there is no cause
STILL = {
    "Instances missing",
    "Moves between decoders, moves",
    "Transitions, {{outcome}}",
    "Transitions, running now",
    "Reserved for transfers, {{instance_id}} quarantined",
    "Workers and the coordinator, lost in 5 min",
}
# At 0 whenever a scrape looks, or without a reason in this load.
MAYBE = {
    "Requests running",
    "Requests waiting",
    "Requests here, running {{modality}}",
    "Requests here, waiting {{modality}}",
    "Requests here, preparing",
    "Requests, {{instance_id}}",
    "Sequences, {{instance_id}} {{stage}}",
    "Media to encode, {{instance_id}} {{state}}",
    "Tokens waiting for prefill, {{instance_id}}",
    "KV blocks in use, {{instance_id}}",
    "Embedding blocks in use, {{instance_id}}",
    "Reserved for transfers, {{instance_id}} leases",
    "In flight, {{transport}}",
    "Bytes found, {{pool}} pulled",
    "Kept and refused, {{pool}} refused",
    "HTTP in flight, {{instance}}",
}


def ask(watched: Watched, query: Query, chosen: dict[str, str]) -> list[Series]:
    asked = query.asked(chosen, RATE_INTERVAL)
    return watched.prometheus.series(asked, watched.start_s, watched.end_s)


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_a_panel_shows_what_the_load_did(watched: Watched, query: Query) -> None:
    series = ask(watched, query, ALL)
    values = [value for each in series for value in each.values]
    assert bool(values) == (str(query) not in EMPTY)
    assert all(math.isfinite(value) and value >= 0 for value in values)
    if query.unit == "percentunit":
        assert max(values) <= 1
    if str(query) not in MAYBE | EMPTY:
        assert any(values) == (str(query) not in STILL)


@pytest.mark.parametrize("title", dict.fromkeys(query.panel for query in QUERIES))
def test_a_legend_tells_the_series_of_a_panel_apart(watched: Watched, title: str) -> None:
    names = [
        query.named(each.labels)
        for query in QUERIES
        if query.panel == title
        for each in ask(watched, query, ALL)
    ]
    assert len(names) == len(set(names))


def test_what_is_excepted_is_there() -> None:
    assert {str(query) for query in QUERIES} >= EMPTY | STILL | MAYBE


def test_variables_have_values_and_choosing_them_all_changes_nothing(watched: Watched) -> None:
    found = {label: watched.prometheus.label_values(metric, label) for metric, label in variables()}
    assert found == {"tenant": ["default"], "modality": ["multimodal", "text"]}
    chosen = {label: choice(values) for label, values in found.items()}
    for query in QUERIES:
        assert ask(watched, query, chosen) == ask(watched, query, ALL), query


def test_one_modality_is_told_from_the_other(watched: Watched) -> None:
    one = ALL | {"modality": choice(["text"])}
    labels = [
        each.labels for query in QUERIES if "$modality" in query.expr for each in ask(watched, query, one)
    ]
    assert {each["modality"] for each in labels if "modality" in each} == {"text"}


def test_every_request_is_counted_once(watched: Watched) -> None:
    value = watched.prometheus.value
    assert value(FINISHED) == watched.num_requests
    assert value('sum(elasticmm:slo_requests_total{result="good"})') == watched.num_requests
    assert value("sum(elasticmm:e2e_request_latency_seconds_count)") == watched.num_requests
    assert value(REFUSED) == 4


def test_alerts_are_evaluated_and_quiet(watched: Watched) -> None:
    rules = watched.prometheus.rules()
    assert len(rules) == 17
    assert [rule for rule in rules if (rule["health"], rule["state"]) != ("ok", "inactive")] == []


@needs_promtool
@pytest.mark.parametrize("door", ["listener", "http"])
def test_the_linter_finds_colons_and_nothing_else(watched: Watched, metrics_port: int, door: str) -> None:
    url = watched.running.http if door == "http" else f"http://127.0.0.1:{metrics_port}"
    found = lint(httpx.get(f"{url}/metrics").text)
    assert len(found) > 50
    assert [each for each in found if not each.endswith(" metric names should not contain ':'")] == []


def test_samples_have_the_labels_of_the_docs(watched: Watched) -> None:
    told = {each["name"]: set(each["labels"].split(", ")) - {""} for each in documented()}
    for family in text_string_to_metric_families(httpx.get(f"{watched.running.http}/metrics").text):
        name = family.name + ("_total" if family.type == "counter" else "")
        assert all(sample.labels.keys() - {"le"} == told[name] for sample in family.samples), name
