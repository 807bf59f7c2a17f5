"""What became of each request, and the figures of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from cli.load.workload import Kind

_QUANTILES = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request. Times in seconds; of an open loop they count from the planned arrival."""

    index: int
    kind: Kind
    start_s: float  # after the start of the run
    end_s: float
    ttft_s: float | None = None
    tpot_s: float | None = None
    prompt_tokens: int = 0
    media_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0  # of the prompt
    cached_media: int = 0
    stage_s: tuple[tuple[str, float], ...] = ()  # stage name and its duration
    error: str | None = None

    @property
    def is_ok(self) -> bool:
        return self.error is None

    @property
    def code(self) -> str | None:
        """Of the error, which begins with it."""
        return None if self.error is None else self.error.partition(":")[0]

    def sped_up(self, by: float) -> Outcome:
        """As if all had taken so many times less."""
        return replace(
            self,
            start_s=self.start_s / by,
            end_s=self.end_s / by,
            ttft_s=None if self.ttft_s is None else self.ttft_s / by,
            tpot_s=None if self.tpot_s is None else self.tpot_s / by,
            stage_s=tuple((stage, seconds / by) for stage, seconds in self.stage_s),
        )


@dataclass(frozen=True, slots=True)
class Targets:
    """What a good request keeps under, milliseconds; None asks for nothing."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None

    @property
    def words(self) -> str:
        """Empty where nothing is asked for."""
        given = (("TTFT", self.ttft_ms), ("TPOT", self.tpot_ms))
        return ", ".join(f"{name} at most {ms:g} ms" for name, ms in given if ms is not None)

    def met_by(self, outcome: Outcome) -> bool:
        return outcome.is_ok and _under(outcome.ttft_s, self.ttft_ms) and _under(outcome.tpot_s, self.tpot_ms)


def summarize(outcomes: Sequence[Outcome], targets: Targets) -> dict[str, Any]:
    """Figures of all requests, and of each kind where there are two."""
    duration_s = max(each.end_s for each in outcomes) - min(each.start_s for each in outcomes)
    summary: dict[str, Any] = {"duration_s": duration_s, **_figures(outcomes, targets, duration_s)}
    kinds = sorted({each.kind for each in outcomes})
    if len(kinds) > 1:
        for kind in kinds:
            summary[kind] = _figures([each for each in outcomes if each.kind == kind], targets, duration_s)
    errors = sorted({each.error for each in outcomes if each.error})
    by_code = dict(sorted(Counter(each.code for each in outcomes if each.code).items()))
    return summary | ({"errors": errors[:5], "errors_by_code": by_code} if errors else {})


def _figures(outcomes: Sequence[Outcome], targets: Targets, duration_s: float) -> dict[str, Any]:
    done = [each for each in outcomes if each.is_ok]
    num_good = sum(targets.met_by(each) for each in done)
    return {
        "requests": len(outcomes),
        "failed": len(outcomes) - len(done),
        "requests_per_s": len(done) / duration_s,
        "output_tokens_per_s": sum(each.output_tokens for each in done) / duration_s,
        "goodput_per_s": num_good / duration_s,
        "good_share": num_good / len(outcomes),
        "prompt_tokens_mean": _mean([each.prompt_tokens for each in done]),
        "cached_tokens": sum(each.cached_tokens for each in done),
        "output_tokens_mean": _mean([each.output_tokens for each in done]),
        "ttft_ms": quantiles([each.ttft_s * 1e3 for each in done if each.ttft_s is not None]),
        "tpot_ms": quantiles([each.tpot_s * 1e3 for each in done if each.tpot_s is not None]),
        "latency_ms": quantiles([(each.end_s - each.start_s) * 1e3 for each in done]),
        "stage_ms": _stage_means(done),
    }


def quantiles(values: Iterable[float]) -> dict[str, float]:
    """Mean and nearest-rank percentiles; empty where there are no values."""
    ordered = sorted(values)
    if not ordered:
        return {}
    ranks = {f"p{each}": ordered[-(-each * len(ordered) // 100) - 1] for each in _QUANTILES}
    return {"mean": fmean(ordered), **ranks}


def _stage_means(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Mean duration of each stage over the spans of that stage."""
    spans: dict[str, list[float]] = {}
    for outcome in outcomes:
        for stage, duration_s in outcome.stage_s:
            spans.setdefault(stage, []).append(duration_s * 1e3)
    return {stage: fmean(values) for stage, values in spans.items()}


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else 0.0


def _under(value_s: float | None, target_ms: float | None) -> bool:
    return target_ms is None or value_s is None or value_s * 1e3 <= target_ms
