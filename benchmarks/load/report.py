"""Figures side by side: medians over rounds, ratios to the first set-up, as a table and as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from rich import box
from rich.table import Table

_ROWS = (
    ("output tokens/s", "output_tokens_per_s"),
    ("requests/s", "requests_per_s"),
    ("goodput/s", "goodput_per_s"),
    ("good share", "good_share"),
    ("failed", "failed"),
    ("TTFT p50 ms", "ttft_ms.p50"),
    ("TTFT p90 ms", "ttft_ms.p90"),
    ("TTFT p99 ms", "ttft_ms.p99"),
    ("TPOT p50 ms", "tpot_ms.p50"),
    ("TPOT p90 ms", "tpot_ms.p90"),
    ("TPOT p99 ms", "tpot_ms.p99"),
    ("latency p50 ms", "latency_ms.p50"),
    ("latency p90 ms", "latency_ms.p90"),
    ("encode mean ms", "stage_ms.encode"),
    ("prefill mean ms", "stage_ms.prefill"),
    ("decode mean ms", "stage_ms.decode"),
    ("prompt tokens", "prompt_tokens_mean"),
)
_KIND_ROWS = ("ttft_ms.p50", "ttft_ms.p90", "tpot_ms.p50", "tpot_ms.p90", "good_share")


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Numbers by dotted path: {"ttft_ms": {"p50": 3.0}} is {"ttft_ms.p50": 3.0}."""
    flat: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            flat[prefix + key] = float(value)
    return flat


def medians(rounds: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The median over rounds of every figure that all rounds have."""
    flats = [flatten(each) for each in rounds]
    shared = [key for key in flats[0] if all(key in flat for flat in flats)]
    return {key: median(flat[key] for flat in flats) for key in shared}


def build_report(rounds: Mapping[str, Sequence[Mapping[str, Any]]], **about: Any) -> dict[str, Any]:
    """Everything of a call, for JSON. Ratios are those of each round, then their median."""
    first, *others = rounds
    return {
        **about,
        "machine": describe_machine(),
        "setups": {name: {"median": medians(each), "rounds": list(each)} for name, each in rounds.items()},
        "ratios": {f"{name} / {first}": ratios(rounds[name], rounds[first]) for name in others},
    }


def ratios(rounds: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of every figure to that in the same round of `base`, not 0 there: the median over rounds."""
    pairs = [(flatten(each), flatten(other)) for each, other in zip(rounds, base, strict=True)]
    shared = [key for key in pairs[0][0] if all(key in each and other.get(key) for each, other in pairs)]
    return {key: median(each[key] / other[key] for each, other in pairs) for key in shared}


def build_table(report: Mapping[str, Any]) -> Table:
    """One column per set-up and one per ratio."""
    columns = [each["median"] for each in report["setups"].values()]
    to_first = list(report["ratios"].values())
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("median over rounds")
    for name in (*report["setups"], *report["ratios"]):
        table.add_column(name, justify="right")
    for label, key in _all_rows():
        if any(key in each for each in columns):
            cells = [_number(each.get(key)) for each in columns]
            table.add_row(label, *cells, *(ratio_words(each.get(key)) for each in to_first))
    return table


def _all_rows() -> list[tuple[str, str]]:
    labels = {key: label for label, key in _ROWS}
    of_kinds = [
        (f"{kind}: {labels[key]}", f"{kind}.{key}") for kind in ("text", "image") for key in _KIND_ROWS
    ]
    return [*_ROWS, *of_kinds]


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def ratio_words(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x"


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory, load when asked, GPUs."""
    from stage_servers.devices import available_cores, find_gpus

    return {
        "processor": _processor_name(),
        "cores": len(available_cores()),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_average": os.getloadavg()[0],
        "gpus": [gpu.name for gpu in find_gpus()],
        "python": platform.python_version(),
    }


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
