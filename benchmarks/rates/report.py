"""Best rates as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from benchmarks.elasticity.playing import HOST_ROWS
from benchmarks.rates.book import LIVE, SIMULATED
from benchmarks.rates.found import mean_figures, ratio

_COMPARED = (("emp", "replicas"), ("emp", "coupled"))
_ROWS = (
    ("best rate", "rate_rps"),
    ("in time", "good_share"),
    ("goodput/s", "goodput_per_s"),
    ("TTFT p50 ms", "ttft_ms.p50"),
    ("TTFT p90 ms", "ttft_ms.p90"),
    ("TTFT p99 ms", "ttft_ms.p99"),
    ("text TTFT p90 ms", "text.ttft_ms.p90"),
    ("image TTFT p90 ms", "image.ttft_ms.p90"),
    ("TPOT p50 ms", "tpot_ms.p50"),
    ("TPOT p90 ms", "tpot_ms.p90"),
    ("failed", "failed"),
    ("role switches", "switches"),
    ("a lone request's ms of the host", "host_ms"),
    ("a lone step's ms of the host", "host_step_ms"),
    *HOST_ROWS,
)


def rates_table(found: Sequence[Mapping[str, Any]]) -> Table:
    """Live best rates with the simulator's in brackets, and ratios; a row per seed, then their means."""
    sets = list(dict.fromkeys(each["set"] for each in found))
    table = Table(box=box.SIMPLE, pad_edge=False)
    for header in ("case", "seed", *sets, *(f"{better} / {worse}" for better, worse in _COMPARED)):
        table.add_column(header, justify="left" if header == "case" else "right")
    for case in dict.fromkeys(each["case"] for each in found):
        seeds = sorted({each["seed"] for each in found if each["case"] == case})
        for seed in seeds:
            own = [each for each in found if (each["case"], each["seed"]) == (case, seed)]
            by_set = {each["set"]: each for each in own}
            cells = [_rates(by_set[name]) if name in by_set else "" for name in sets]
            table.add_row(case, str(seed), *cells, *_ratios(own, case))
        means = [_mean(found, case, name) for name in sets]
        table.add_row(case, "mean", *means, *_ratios(found, case))
    return table


def figures_table(found: Sequence[Mapping[str, Any]], case: str) -> Table:
    """What it was like live at the best rates, means over seeds."""
    sets = list(dict.fromkeys(each["set"] for each in found if each["case"] == case))
    columns = [mean_figures(found, case, name)[1] for name in sets]
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column(f"{case}: live, at the best rate")
    for name in sets:
        table.add_column(name, justify="right")
    for label, key in _ROWS:
        table.add_row(label, *(f"{each[key]:,.4g}" if key in each else "" for each in columns))
    return table


def _rates(each: Mapping[str, Any]) -> str:
    live = "-" if each[LIVE] is None else f"{each[LIVE]:.1f}{'+' if each['is_least'] else ''}"
    return f"{live} ({each[SIMULATED]:.1f})" if each[SIMULATED] else live


def _mean(found: Sequence[Mapping[str, Any]], case: str, name: str) -> str:
    own = [each for each in found if (each["case"], each["set"]) == (case, name)]
    live, simulated = ([each[side] for each in own if each[side]] for side in (LIVE, SIMULATED))
    words = [f"{sum(rates) / len(rates):.1f}" if rates else "-" for rates in (live, simulated)]
    return f"{words[0]} ({words[1]})"


def _ratios(found: Sequence[Mapping[str, Any]], case: str) -> list[str]:
    cells = []
    for better, worse in _COMPARED:
        live, simulated = (ratio(found, side, case, better, worse) for side in (LIVE, SIMULATED))
        beside = "" if simulated is None else f" ({simulated:.2f})"
        cells.append("" if live is None else f"{live:.2f}{beside}")
    return cells
