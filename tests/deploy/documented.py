"""The table of docs/metrics.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

COLUMNS = ("name", "type", "labels", "meaning", "elsewhere")


def documented() -> Iterator[dict[str, str]]:
    """A row each, by COLUMNS, the name without its quotes."""
    for line in Path("docs/metrics.md").read_text().splitlines():
        if line.startswith("| `elasticmm:"):
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            row = dict(zip(COLUMNS, [*cells, ""], strict=False))
            yield row | {"name": row["name"].strip("`")}
