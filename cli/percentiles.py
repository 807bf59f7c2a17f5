"""Times of recent requests against their targets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from elasticmm_client.recent import RecentRequests, RequestTrace

PERCENTS = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of one time over the requests of a window; empty values where there were none."""

    name: str  # "TTFT" or "TPOT"
    group: str
    num_requests: int
    values_ms: tuple[float, ...]  # one per PERCENTS
    slo_ms: float
    num_met: int

    @property
    def attained(self) -> float | None:
        """Share of requests that met the target; None without any."""
        return self.num_met / self.num_requests if self.num_requests else None


def percentiles_of(recent: RecentRequests, window_s: float) -> tuple[Percentiles, ...]:
    """TTFT and TPOT of each group that had requests that ended within the window."""
    ended = [
        each for each in recent.requests if (each.ended_s_ago or 0.0) <= window_s and each.end_ms is not None
    ]
    return tuple(
        each
        for group in sorted({trace.group for trace in ended})
        for each in _of_group(group, [trace for trace in ended if trace.group == group], recent)
    )


def nearest_rank(ordered: Sequence[float], percent: int) -> float:
    """The least value that so many percent of `ordered` do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _of_group(
    group: str, ended: Iterable[RequestTrace], recent: RecentRequests
) -> tuple[Percentiles, Percentiles]:
    traces = list(ended)
    ttft_s = recent.slo_multimodal_ttft_s if group == "multimodal" else recent.slo_ttft_s
    return (
        _make("TTFT", group, [each.first_token_ms for each in traces], ttft_s * 1e3),
        _make("TPOT", group, [each.tpot_ms for each in traces], recent.slo_tpot_s * 1e3),
    )


def _make(name: str, group: str, times: Iterable[float | None], slo_ms: float) -> Percentiles:
    ordered = sorted(each for each in times if each is not None)
    values = tuple(nearest_rank(ordered, percent) for percent in PERCENTS) if ordered else ()
    return Percentiles(name, group, len(ordered), values, slo_ms, sum(each <= slo_ms for each in ordered))
