"""The dashboard's queries, with variables put in as Grafana puts them in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DASHBOARD: dict[str, Any] = json.loads(Path("deploy/grafana/elasticmm.json").read_text())
ALL = {"tenant": ".*", "modality": ".*"}  # as `allValue` says


@dataclass(frozen=True, slots=True)
class Query:
    """One target of a panel."""

    panel: str
    unit: str
    expr: str
    legend: str

    def __str__(self) -> str:
        return f"{self.panel}, {self.legend}" if self.legend else self.panel

    def asked(self, chosen: Mapping[str, str], rate_interval: str) -> str:
        """PromQL; raises KeyError for a variable that there is not."""
        values = {**chosen, "__rate_interval": rate_interval}
        return re.sub(r"\$\{?(\w+)\}?", lambda found: values[found[1]], self.expr)

    def named(self, labels: Mapping[str, str]) -> str:
        """A series in the legend; raises KeyError for a label that it lacks."""
        return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels[found[1]], self.legend)


def panels() -> list[dict[str, Any]]:
    """Without the rows that part them."""
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> Iterator[Query]:
    for panel in panels():
        unit = panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            yield Query(panel["title"], unit, target["expr"], target["legendFormat"])


def variables() -> Iterator[tuple[str, str]]:
    """(metric, label) of each `label_values` query."""
    for each in DASHBOARD["templating"]["list"]:
        if each["type"] == "query":
            found = re.fullmatch(r"label_values\(([\w:]+), (\w+)\)", each["query"]["query"])
            assert found is not None
            yield found[1], found[2]


def choice(values: list[str]) -> str:
    """Several values of a variable, as a pattern."""
    return f"({'|'.join(re.escape(value) for value in values)})"
