"""Panels, alerts and the docs name metrics that there are."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from prometheus_client.core import Metric

from tests.deploy.documented import documented
from tests.deploy.grafana import queries, variables
from tests.deploy.promtool import RULES_FILE

RULES = [rule for group in yaml.safe_load(RULES_FILE.read_text())["groups"] for rule in group["rules"]]
NOT_OURS = {"up"}  # Prometheus's own


def names_in(query: str) -> set[str]:
    return set(re.findall(r"elasticmm:\w+", query))


def test_every_panel_asks_for_metrics_that_there_are(sample_names: set[str]) -> None:
    asked = list(queries())
    assert len(asked) > 40
    for query in asked:
        assert names_in(query.expr), query
        assert names_in(query.expr) <= sample_names, query


def test_every_variable_asks_for_metrics_that_there_are(sample_names: set[str]) -> None:
    asked = {metric for metric, _ in variables()}
    assert len(asked) == 2
    assert asked <= sample_names


def test_every_alert_asks_for_metrics_that_there_are(sample_names: set[str]) -> None:
    for rule in RULES:
        names = names_in(rule["expr"]) or NOT_OURS & set(re.findall(r"\w+", rule["expr"]))
        assert names, rule["alert"]
        assert names <= sample_names | NOT_OURS, rule["alert"]


def test_the_docs_explain_every_alert() -> None:
    explained = re.findall(r"^\| `(ElasticMM\w+)` \|", Path("docs/watching.md").read_text(), re.MULTILINE)
    assert explained == [rule["alert"] for rule in RULES]


def test_the_docs_list_every_metric_with_its_own_words(metrics: list[Metric]) -> None:
    listed = [(each["name"], each["type"], each["meaning"]) for each in documented()]
    assert sorted(listed) == sorted(
        (
            metric.name + ("_total" if metric.type == "counter" else ""),
            metric.type,
            metric.documentation.removesuffix("."),
        )
        for metric in metrics
    )


def test_every_explanation_stands_by_itself(metrics: list[Metric]) -> None:
    """Prometheus shows it beside the one name."""
    words = [metric.documentation for metric in metrics]
    assert len(words) == len(set(words))
    assert all(re.fullmatch(r"[A-Z0-9].{8,}\.", each) for each in words)
    assert not [each for each in words if re.match(r"(Their|Of those|Of its|That)\b", each)]


def test_names_elsewhere_are_those_that_are_in_force_there() -> None:
    """A dashboard made for vLLM needs another prefix only; OpenTelemetry's are those of its own package."""
    pairs = [
        (each["name"], name) for each in documented() for name in re.findall(r"`(.+?)`", each["elsewhere"])
    ]
    vllm = [(ours, theirs) for ours, theirs in pairs if theirs.startswith("vllm:")]
    assert len(vllm) > 10
    assert all(theirs.removeprefix("vllm:") == ours.removeprefix("elasticmm:") for ours, theirs in vllm)
    others = {theirs for _, theirs in pairs} - {theirs for _, theirs in vllm}
    known = {value for name, value in vars(gen_ai_metrics).items() if name.startswith("GEN_AI_SERVER_")}
    assert others == known
