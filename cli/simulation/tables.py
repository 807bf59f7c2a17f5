"""A sweep as tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from simulator.report import Best, Comparison, Point, Spared, best, compare, points, spared

if TYPE_CHECKING:
    from simulator.scenario import Scenario
    from simulator.sweep import Outcome

_PIPE_WIDTH = 250  # so that lines stay whole for other programs


def show(scenario: Scenario, outcomes: Sequence[Outcome]) -> None:
    """Latencies and goodput by rate, what caches spared, best rates, published figures beside ours."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    rates = {case.name: scenario.rates(case) for case in scenario.cases}
    seeds = len({each.seed for each in outcomes})
    console.print(f"{scenario.title}: {scenario.cluster.instances} instances, means over {seeds} seeds")
    console.print(rate_table(points(outcomes, rates.__getitem__)))
    if rows := spared(outcomes, rates.__getitem__):
        console.print(spared_table(rows))
    console.print(best_table(best(outcomes), scenario.attainment))
    if comparisons := compare(scenario, outcomes):
        console.print(comparison_table(comparisons))


def rate_table(rows: Sequence[Point]) -> Table:
    table = _table("case", "variant", "set")
    table.add_column("req/s", justify="right")
    table.add_column("requests")
    for header in (
        "TTFT p50",
        "p90",
        "p99 s",
        "TPOT p50",
        "p90",
        "p99 ms",
        "in ms/tok",
        "out ms/tok",
        "attained",
        "goodput",
        "busy",
        "switches",
        "moves",
        "$/1000",
    ):
        table.add_column(header, justify="right")
    for row in rows:
        table.add_row(
            row.case,
            row.variant,
            row.policy_set,
            f"{row.rate_rps:g}",
            row.source,
            *(_number(value, 1, 3) for value in (row.ttft_p50_s, row.ttft_p90_s, row.ttft_p99_s)),
            *(_number(value, 1e3, 1) for value in (row.tpot_p50_s, row.tpot_p90_s, row.tpot_p99_s)),
            _number(row.input_s_per_token, 1e3, 3),
            _number(row.output_s_per_token, 1e3, 1),
            f"{row.attained:.1%}",
            f"{row.goodput_rps:.2f}",
            f"{row.utilisation:.0%}",
            f"{row.num_switches:.0f}",
            f"{row.num_moves:.0f}",
            _number(row.cost_per_1000, 1, 3),
        )
    return table


def spared_table(rows: Sequence[Spared]) -> Table:
    table = _table("case", "variant", "set")
    for header in ("req/s", "embeddings cached", "encodes skipped", "tokens cached", "pulled MB"):
        table.add_column(header, justify="right")
    for row in rows:
        counts = row.encoder_hits, row.skipped_encodes, row.prefix_hit_tokens, row.pulled_bytes / 1e6
        cells = (f"{count:,.0f}" for count in counts)
        table.add_row(row.case, row.variant, row.policy_set, f"{row.rate_rps:g}", *cells)
    return table


def best_table(rows: Sequence[Best], attainment: float) -> Table:
    table = _table("case", "variant", "set")
    for header in ("scale", f"req/s at {attainment:.0%}", "least", "most"):
        table.add_column(header, justify="right")
    for row in rows:
        cells = (f"{row.mean_rps:.2f}", f"{row.least_rps:.2f}", f"{row.most_rps:.2f}")
        table.add_row(row.case, row.variant, row.policy_set, f"{row.scale:g}", *cells)
    return table


def comparison_table(rows: Sequence[Comparison]) -> Table:
    table = _table("case", "measure", "better than")
    for header in ("published", "ours", "least", "most", "published is"):
        table.add_column(header, justify="right")
    for row in rows:
        reference = row.reference
        table.add_row(
            reference.case,
            reference.measure,
            f"{reference.better} / {', '.join(reference.worse)}",
            f"{reference.value:g}x",
            *(_number(value, 1, 2) for value in (row.ours, row.least, row.most)),
            {True: "inside", False: "outside", None: "-"}[row.is_inside],
        )
    return table


def _table(*headers: str) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    for header in headers:
        table.add_column(header)
    return table


def _number(value: float | None, by: float, digits: int) -> str:
    return "-" if value is None else f"{value * by:.{digits}f}"
