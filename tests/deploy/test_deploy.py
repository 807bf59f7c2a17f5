"""Panels, alerts and the docs name metrics that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.core import Metric

DASHBOARD = json.loads(Path("deploy/grafana/elasticmm.json").read_text())
RULES = [
    rule
    for group in yaml.safe_load(Path("deploy/prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
NOT_OURS = {"up"}  # Prometheus's own


def names_in(query: str) -> set[str]:
    return set(re.findall(r"elasticmm:\w+", query))


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def test_every_panel_asks_for_metrics_that_there_are(sample_names: set[str]) -> None:
    queries = [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]
    assert len(queries) > 40
    for title, query in queries:
        assert names_in(query), title
        assert names_in(query) <= sample_names, title


def test_every_variable_asks_for_metrics_that_there_are(sample_names: set[str]) -> None:
    queries = [each["query"]["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]
    assert len(queries) == 2
    for query in queries:
        assert names_in(query)
        assert names_in(query) <= sample_names


def test_every_alert_asks_for_metrics_that_there_are(sample_names: set[str]) -> None:
    for rule in RULES:
        names = names_in(rule["expr"]) or NOT_OURS & set(re.findall(r"\w+", rule["expr"]))
        assert names, rule["alert"]
        assert names <= sample_names | NOT_OURS, rule["alert"]


def test_panels_do_not_overlap() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert {panel["id"] for panel in DASHBOARD["panels"]} == set(range(1, len(places) + 1))


def test_the_docs_explain_every_alert() -> None:
    explained = re.findall(r"^\| `(ElasticMM\w+)` \|", Path("docs/operations.md").read_text(), re.MULTILINE)
    assert explained == [rule["alert"] for rule in RULES]


def test_the_docs_list_every_metric(metrics: list[Metric]) -> None:
    listed = re.findall(r"^\| `(elasticmm:\w+)` \|", Path("docs/metrics.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(
        metric.name + ("_total" if metric.type == "counter" else "") for metric in metrics
    )
