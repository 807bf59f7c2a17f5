"""A run's figures for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

_TIMES = (("TTFT ms", "ttft_ms"), ("TPOT ms", "tpot_ms"), ("end to end ms", "latency_ms"))
_COLUMNS = ("mean", "p50", "p90", "p99")


def times_table(summary: Mapping[str, Any]) -> Table:
    table = Table("", *_COLUMNS, box=box.SIMPLE, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for label, key in _TIMES:
        values = summary[key]
        table.add_row(label, *(f"{values[name]:.1f}" if values else "" for name in _COLUMNS))
    return table


def counts_table(summary: Mapping[str, Any], targets: str) -> Table:
    """`targets` in words; empty where there are none."""
    table = Table("", "", box=box.SIMPLE, pad_edge=False, show_header=False)
    done = summary["requests"] - summary["failed"]
    table.add_row("requests", f"{done} answered, {summary['failed']} failed in {summary['duration_s']:.1f} s")
    table.add_row("requests/s", f"{summary['requests_per_s']:.2f}")
    table.add_row("output tokens/s", f"{summary['output_tokens_per_s']:.1f}")
    good = f"{summary['goodput_per_s']:.2f} requests/s, {summary['good_share']:.0%} of all"
    table.add_row("goodput", f"{good} ({targets})" if targets else f"{good} (no targets)")
    prompts = f"{summary['prompt_tokens_mean']:.0f} in, {summary['output_tokens_mean']:.0f} out"
    table.add_row("tokens per request", prompts)
    table.add_row("cached prompt tokens", str(summary["cached_tokens"]))
    for code, count in summary.get("errors_by_code", {}).items():
        table.add_row(f"failed: {code}", str(count))
    return table
