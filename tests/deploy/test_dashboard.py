"""The dashboard is one that Grafana takes, as far as can be told without it, and asks what makes sense."""

from __future__ import annotations

import re
from itertools import pairwise, product
from typing import Any

import pytest
import yaml
from prometheus_client.core import Metric

from tests.deploy.grafana import ALL, DASHBOARD, panels, queries
from tests.deploy.promtool import RULES_FILE

COLUMNS = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
KINDS = {"row", "stat", "timeseries"}  # all of them part of Grafana itself
UNITS = {"s", "bytes", "Bps", "ops", "reqps", "percentunit", "short"}  # by Grafana's ids
RATES = {"rate", "increase"}
VARIABLES = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
EXPRESSIONS = [query.expr for query in queries()] + [
    rule["expr"] for group in yaml.safe_load(RULES_FILE.read_text())["groups"] for rule in group["rules"]
]


def test_the_whole_can_be_imported_and_found_again() -> None:
    assert "id" not in DASHBOARD  # is the database's
    assert re.fullmatch(r"[\w-]{1,40}", DASHBOARD["uid"])
    assert DASHBOARD["title"]
    assert 36 <= DASHBOARD["schemaVersion"] <= 41  # Grafana 9 to 11; later ones migrate it
    assert DASHBOARD["time"] == {"from": "now-1h", "to": "now"}
    assert re.fullmatch(r"\d+[smh]", DASHBOARD["refresh"])


def test_the_source_is_chosen_first_and_asked_by_all() -> None:
    (first, chosen), *others = VARIABLES.items()
    assert (first, chosen["type"], chosen["query"]) == ("datasource", "datasource", "prometheus")
    for name, variable in others:
        assert (variable["type"], variable["datasource"]) == ("query", SOURCE)
        assert (variable["allValue"], variable["query"]["refId"]) == (ALL[name], name)
    for panel in panels():
        assert panel["datasource"] == SOURCE
        assert all(target["datasource"] == SOURCE for target in panel["targets"])


def test_every_variable_is_used_and_none_is_missing() -> None:
    used = {name for query in queries() for name in re.findall(r"\$\{?(\w+)", query.expr)}
    assert used == VARIABLES.keys() - {"datasource"} | {"__rate_interval"}


def test_panels_lie_in_the_grid_below_their_rows_and_do_not_overlap() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [cell for place in places for cell in cells_of(place)]
    assert len(cells) == len(set(cells))
    assert {x for x, _ in cells} == set(range(COLUMNS))
    assert all(one["y"] <= other["y"] for one, other in pairwise(places))
    assert sorted({y for _, y in cells}) == list(range(max(y for _, y in cells) + 1))


def cells_of(place: dict[str, int]) -> list[tuple[int, int]]:
    x, y, width, height = place["x"], place["y"], place["w"], place["h"]
    assert min(width, height) > 0
    return list(product(range(x, x + width), range(y, y + height)))


def test_panels_have_numbers_kinds_and_titles() -> None:
    assert [panel["id"] for panel in DASHBOARD["panels"]] == list(range(1, len(DASHBOARD["panels"]) + 1))
    assert {panel["type"] for panel in DASHBOARD["panels"]} == KINDS
    assert all(panel["title"] for panel in DASHBOARD["panels"])
    rows = [panel for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert all((row["collapsed"], row["panels"], row["gridPos"]["w"]) == (False, [], COLUMNS) for row in rows)


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: str(panel["title"]))
def test_a_panel_is_whole(panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"] in UNITS
    assert [target["refId"] for target in panel["targets"]] == list("ABCDEFGH"[: len(panel["targets"])])
    steps = [step["value"] for step in defaults.get("thresholds", {}).get("steps", [])]
    assert steps == [] or (steps[0] is None and steps[1:] == sorted(steps[1:]))
    if panel["type"] == "stat":
        assert panel["options"]["reduceOptions"]["calcs"] == ["lastNotNull"]
        assert len(panel["targets"]) == 1
    else:
        assert defaults["custom"]["stacking"]["mode"] in {"none", "normal"}
        assert all(target["legendFormat"] for target in panel["targets"])


def test_counters_are_asked_for_their_rates_and_gauges_for_what_they_are(metrics: list[Metric]) -> None:
    growing = {metric.name + "_total" for metric in metrics if metric.type == "counter"}
    growing |= {metric.name + "_bucket" for metric in metrics if metric.type == "histogram"}
    for expression in EXPRESSIONS:
        for function, name in re.findall(r"(?:(\w+)\s*\(\s*)?(elasticmm:\w+)", expression):
            assert (function in RATES) == (name in growing), expression


def test_quantiles_keep_the_bounds_of_buckets() -> None:
    asked = [each for each in EXPRESSIONS if "_bucket" in each]
    assert len(asked) > 10
    assert all(re.search(r"histogram_quantile\(\s*0\.\d+, sum by \([^)]*\ble\b", each) for each in asked)


@pytest.mark.parametrize(
    ("asked", "unit"),
    [
        (r"histogram_quantile\(.*_seconds_bucket", "s"),
        (r"^elasticmm:\w+_seconds\b", "s"),
        (r"rate\(elasticmm:\w+_bytes_total", "Bps"),
        (r"^sum by [^/]*\(elasticmm:\w+_bytes\b", "bytes"),
        (r"^[^/]*(rate|increase)\([^/]*/ sum", "percentunit"),
    ],
)
def test_units_are_those_of_the_metrics(asked: str, unit: str) -> None:
    units = {
        query.unit for query in queries() if re.search(asked, query.expr) and "dispatches" not in query.expr
    }
    assert units == {unit}
