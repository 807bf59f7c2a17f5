"""Trace files by format, cut to a stretch and compressed in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from simulator.workload import azure, mooncake, servegen
from simulator.workload.errors import check
from simulator.workload.request import Request

Format = Literal["azure-llm", "azure-lmm", "azure-lmm-minutes", "mooncake", "servegen"]


@dataclass(frozen=True, slots=True)
class TraceSpec:
    """`path` and the other files lie under the data folder. Time is compressed to meet the wanted rate."""

    format: Format
    path: str
    start_s: float = 0.0
    duration_s: float | None = None  # of the file's own time; None: to its end
    max_tokens: int = 2048  # that clients allow; longer answers are cut
    quantiles: str = ""  # azure-lmm-minutes: digitised percentiles of lengths
    images: str = ""  # azure-lmm-minutes: digitised CDF of NumImages
    clients: tuple[int, ...] = ()  # servegen: which ones; none named: all

    def check(self) -> None:
        """Raises WorkloadError naming the key."""
        check(bool(self.path), "path", "is empty")
        check(self.max_tokens > 0, "max_tokens", f"should be more than zero, is {self.max_tokens}")
        check(self.duration_s is None or self.duration_s > 0, "duration_s", "should be more than zero")
        is_minutes = self.format == "azure-lmm-minutes"
        for name in ("quantiles", "images"):
            given = bool(getattr(self, name))
            check(given or not is_minutes, name, f"is needed for format {self.format}")
            check(is_minutes or not given, name, f"is not for format {self.format}")
        check(self.format == "servegen" or not self.clients, "clients", f"is not for format {self.format}")
        check(
            self.format != "servegen" or self.duration_s is not None, "duration_s", "is needed for servegen"
        )


def load(spec: TraceSpec, folder: Path, seed: int) -> list[Request]:
    """Requests of the stretch, seconds from its start, in the file's own time. Raises WorkloadError."""
    path = folder / spec.path
    if spec.format == "servegen":
        assert spec.duration_s is not None
        found = servegen.load(
            path, spec.clients, spec.start_s, spec.duration_s, max_tokens=spec.max_tokens, seed=seed
        )
        check(bool(found), str(path), "holds no request in that stretch")
        return found
    return cut(_read(spec, path, folder, seed), spec.start_s, spec.duration_s, str(path))


def _read(spec: TraceSpec, path: Path, folder: Path, seed: int) -> list[Request]:
    if spec.format == "azure-llm":
        return azure.load_llm(path, spec.max_tokens)
    if spec.format == "azure-lmm":
        return azure.load_lmm(path, spec.max_tokens)
    if spec.format == "mooncake":
        return mooncake.load(path, spec.max_tokens)
    return azure.load_minutes(path, folder / spec.quantiles, folder / spec.images, spec.max_tokens, seed)


def cut(requests: Sequence[Request], start_s: float, duration_s: float | None, source: str) -> list[Request]:
    """The requests of a stretch, in seconds from its start; raises WorkloadError if there is none."""
    end_s = float("inf") if duration_s is None else start_s + duration_s
    kept = [
        replace(each, arrival_s=each.arrival_s - start_s)
        for each in requests
        if start_s <= each.arrival_s < end_s
    ]
    check(bool(kept), source, "holds no request in that stretch")
    return kept


def compress(requests: Sequence[Request], factor: float) -> list[Request]:
    """The same requests `factor` times as fast."""
    check(factor > 0, "factor", f"should be more than zero, is {factor:g}")
    return [replace(each, arrival_s=each.arrival_s / factor) for each in requests]


def mean_rate_rps(requests: Sequence[Request]) -> float:
    """Over the time from zero to the last arrival."""
    span_s = requests[-1].arrival_s
    return len(requests) / span_s if span_s else float(len(requests))
