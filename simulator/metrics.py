"""What a run amounts to: latencies, goodput, attainment, utilisation, cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.lifecycle import RequestState
from simulator.cache_counts import CacheCounts
from simulator.result import RequestRecord, RoleSpan, RunResult
from simulator.scenario import Target


@dataclass(frozen=True, slots=True)
class Spread:
    """Of a quantity over requests; None where nothing had one."""

    mean: float | None
    p50: float | None
    p90: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Latencies:
    """Of one kind of requests; seconds, and seconds per token where normalised."""

    requests: int
    failed: int
    attained: float  # share that met both targets at scale 1
    ttft_s: Spread
    tpot_s: Spread
    input_s_per_token: Spread  # time to the first token by tokens of the prompt
    output_s_per_token: Spread  # whole latency by tokens of the answer


@dataclass(frozen=True, slots=True)
class Summary:
    """One run. `attained` is the share of requests that met both targets, by scale of the targets."""

    rate_rps: float  # offered
    latencies: dict[str, Latencies]  # by source, and "all"
    attained: dict[float, float]
    goodput_rps: float  # of requests that met both targets at scale 1
    throughput_rps: float
    utilisation: dict[str, float]  # by instance
    num_switches: int
    num_moves: int
    num_preemptions: int
    caches: CacheCounts
    duration_s: float
    num_events: int
    spans: tuple[RoleSpan, ...]  # what each instance played when
    cost_per_1000: float | None  # US dollars per thousand finished requests


def spread(values: Iterable[float | None]) -> Spread:
    known = np.array([value for value in values if value is not None])
    if not known.size:
        return Spread(None, None, None, None)
    p50, p90, p99 = np.percentile(known, (50, 90, 99))
    return Spread(float(known.mean()), float(p50), float(p90), float(p99))


def meets(record: RequestRecord, target: Target, scale: float) -> bool:
    """An answer of one token has no time per token to miss."""
    if record.state is not RequestState.FINISHED or record.ttft_s is None:
        return False
    tpot_s = record.tpot_s
    return record.ttft_s <= scale * target.ttft_s and (tpot_s is None or tpot_s <= scale * target.tpot_s)


def latencies(records: Sequence[RequestRecord], slo: Mapping[str, Target]) -> Latencies:
    done = [each for each in records if each.state is RequestState.FINISHED]
    return Latencies(
        requests=len(records),
        failed=len(records) - len(done),
        attained=_attained(records, slo, 1.0),
        ttft_s=spread(each.ttft_s for each in done),
        tpot_s=spread(each.tpot_s for each in done),
        input_s_per_token=spread((each.ttft_s or 0.0) / each.prompt_tokens for each in done),
        output_s_per_token=spread((each.latency_s or 0.0) / each.output_tokens for each in done),
    )


def summarize(
    result: RunResult,
    rate_rps: float,
    slo: Mapping[str, Target],
    scales: Sequence[float] = (1.0,),
    price_per_hour: float | None = None,
) -> Summary:
    """Raises KeyError for requests of a source without targets."""
    records = result.records
    by_source = {source: [each for each in records if each.source == source] for source in slo}
    lost = {each.source for each in records} - slo.keys()
    if lost:
        raise KeyError(f"no targets for requests of source {', '.join(sorted(lost))}")
    attained = {scale: _attained(records, slo, scale) for scale in dict.fromkeys((1.0, *scales))}
    span_s = max((each.arrival_s for each in records), default=0.0) or 1.0
    finished = sum(each.state is RequestState.FINISHED for each in records)
    hours = result.duration_s / 3600 * len(result.usage)
    is_priced = price_per_hour is not None and finished > 0
    return Summary(
        rate_rps=rate_rps,
        latencies={name: latencies(each, slo) for name, each in ({"all": records} | by_source).items()},
        attained=attained,
        goodput_rps=attained[1.0] * len(records) / span_s,
        throughput_rps=finished / (result.duration_s or 1.0),
        utilisation={name: use.busy_s / (result.duration_s or 1.0) for name, use in result.usage.items()},
        num_switches=result.num_switches,
        num_moves=result.num_moves,
        num_preemptions=sum(use.num_preemptions for use in result.usage.values()),
        caches=result.caches,
        duration_s=result.duration_s,
        num_events=result.num_events,
        spans=result.spans,
        cost_per_1000=1000 * hours * (price_per_hour or 0.0) / finished if is_priced else None,
    )


def _attained(records: Sequence[RequestRecord], slo: Mapping[str, Target], scale: float) -> float:
    if not records:
        return 1.0
    return sum(meets(each, slo[each.source], scale) for each in records) / len(records)
