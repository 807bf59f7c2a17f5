"""Two arms side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cli.console import make_console
from cli.exits import print_json
from cli.status import duration

if TYPE_CHECKING:
    from rich.table import Table

    from elasticmm_client.trial import TrialArm, TrialMeasure, TrialReport

_COUNTS = ("good", "late", "slow", "unserved", "crossed")


def show(report: TrialReport, *, as_json: bool) -> None:
    if as_json:
        print_json(dataclasses.asdict(report))
        return
    show_arms(report)


def show_arms(report: TrialReport) -> None:
    console = make_console()
    for line in arm_lines(report):
        console.print(line)
    console.print(arm_table(report))


def arm_lines(report: TrialReport) -> Iterator[str]:
    """Which instances are whose."""
    yield f"experiment {report.experiment}, for {duration(report.watched_s)}"
    for arm in report.arms:
        yield f"  {arm.arm}: {arm.policy} on {', '.join(arm.instance_ids) or 'no instance'}"


def arm_table(report: TrialReport) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("")
    for header in ("a", "b", "b - a", "95% interval"):
        table.add_column(header, justify="right")
    for row in (*_counts(report.arms), *map(_row, report.measures)):
        table.add_row(*row)
    return table


def _counts(arms: tuple[TrialArm, ...]) -> Iterator[tuple[str, ...]]:
    for name in _COUNTS:
        yield name, *(str(getattr(arm, name)) for arm in arms)
    yield "instance_s", *(f"{arm.instance_s:.0f}" for arm in arms)


def _row(measure: TrialMeasure) -> tuple[str, ...]:
    change, low, high = measure.change, measure.low, measure.high
    interval = "" if low is None or high is None else f"{low:+.4g} to {high:+.4g}"
    shown = ("" if value is None else f"{value:.4g}" for value in (measure.a, measure.b))
    return measure.name, *shown, "" if change is None else f"{change:+.4g}", interval
