"""Outcomes of a sweep side by side: means over seeds, and how many times better one set is than others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import mean

from simulator.metrics import Summary
from simulator.scenario import Reference, Scenario
from simulator.sweep import Outcome


@dataclass(frozen=True, slots=True)
class Point:
    """One policy set at one offered rate; means over seeds. None where no request had the quantity."""

    case: str
    variant: str
    policy_set: str
    rate_rps: float
    source: str  # of the requests that latencies and attainment are of; "all"
    ttft_p50_s: float | None
    ttft_p90_s: float | None
    ttft_p99_s: float | None
    tpot_p50_s: float | None
    tpot_p90_s: float | None
    tpot_p99_s: float | None
    input_s_per_token: float | None
    output_s_per_token: float | None
    attained: float
    goodput_rps: float
    utilisation: float
    num_switches: float
    num_moves: float
    cost_per_1000: float | None


@dataclass(frozen=True, slots=True)
class Spared:
    """What caches spared one policy set at one offered rate; means over seeds."""

    case: str
    variant: str
    policy_set: str
    rate_rps: float
    encoder_hits: float
    skipped_encodes: float
    prefix_hit_tokens: float
    pulled_bytes: float


@dataclass(frozen=True, slots=True)
class Best:
    """The highest rate at which enough requests met their targets, over seeds."""

    case: str
    variant: str
    policy_set: str
    scale: float
    mean_rps: float
    least_rps: float
    most_rps: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A published figure and ours: that of the first variant, and the range over all."""

    reference: Reference
    ours: float | None
    least: float | None
    most: float | None

    @property
    def is_inside(self) -> bool | None:
        """Whether the published figure lies in our range."""
        if self.least is None or self.most is None:
            return None
        return self.least <= self.reference.value <= self.most


def points(outcomes: Sequence[Outcome], rates_of: Callable[[str], Sequence[float]]) -> list[Point]:
    """At the rates of the sweep that every seed was run at, those of the searches left out."""
    return [
        _point(group[0], rate, runs, source)
        for group in _by_set(outcomes)
        for rate in rates_of(group[0].case)
        if len(runs := _runs(group, rate)) == len(group)
        for source in runs[0].latencies
    ]


def spared(outcomes: Sequence[Outcome], rates_of: Callable[[str], Sequence[float]]) -> list[Spared]:
    """As `points`, of the sets whose caches spared anything."""
    rows = [
        _spared(group[0], rate, runs)
        for group in _by_set(outcomes)
        for rate in rates_of(group[0].case)
        if len(runs := _runs(group, rate)) == len(group)
    ]
    return [each for each in rows if each.encoder_hits or each.skipped_encodes or each.prefix_hit_tokens]


def best(outcomes: Sequence[Outcome]) -> list[Best]:
    rows = []
    for group in _by_set(outcomes):
        first = group[0]
        for scale in first.best_rps:
            rates = [each.best_rps[scale] for each in group]
            rows.append(
                Best(first.case, first.variant, first.policy_set, scale, mean(rates), min(rates), max(rates))
            )
    return rows


def compare(scenario: Scenario, outcomes: Sequence[Outcome]) -> list[Comparison]:
    """References whose sets were run."""
    ran = {each.policy_set for each in outcomes}
    wanted = [each for each in scenario.references if {each.better, *each.worse} <= ran]
    return [_compare(reference, scenario, outcomes) for reference in wanted]


def _compare(reference: Reference, scenario: Scenario, outcomes: Sequence[Outcome]) -> Comparison:
    ratios: list[float | None] = []
    for variant in dict.fromkeys(each.variant for each in outcomes):
        there = [each for each in outcomes if (each.case, each.variant) == (reference.case, variant)]
        if {reference.better, *reference.worse} <= {each.policy_set for each in there}:
            ratio = ttft_ratio if reference.measure == "ttft" else goodput_ratio
            ratios.append(ratio(there, reference, scenario))
    known = [each for each in ratios if each is not None]
    return Comparison(
        reference, ratios[0] if ratios else None, min(known, default=None), max(known, default=None)
    )


def ttft_ratio(outcomes: Sequence[Outcome], reference: Reference, scenario: Scenario) -> float | None:
    """How many times shorter the mean normalised input latency is, at the rate where that is most.

    Rates above what the better set sustains at the loosest targets do not count.
    """
    better = [each for each in outcomes if each.policy_set == reference.better]
    sustained = mean(max(each.best_rps.values()) for each in better)
    case = next(each for each in scenario.cases if each.name == reference.case)
    ratios = []
    for rate in scenario.rates(case):
        own = _mean_input_s(better, rate)
        found = [
            _mean_input_s([each for each in outcomes if each.policy_set == name], rate)
            for name in reference.worse
        ]
        others = [each for each in found if each is not None]
        if own and others and rate <= sustained:
            ratios.append(min(others) / own)
    return max(ratios, default=None)


def goodput_ratio(outcomes: Sequence[Outcome], reference: Reference, scenario: Scenario) -> float | None:
    """How many times higher the best rate is, at the scale where that is most."""
    ratios = []
    for scale in scenario.scales:
        if any(scale not in each.best_rps for each in outcomes):
            continue
        own = _mean_best(outcomes, reference.better, scale)
        other = max(_mean_best(outcomes, name, scale) for name in reference.worse)
        if own and other:
            ratios.append(own / other)
    return max(ratios, default=None)


def _runs(outcomes: Iterable[Outcome], rate_rps: float) -> list[Summary]:
    return [run for each in outcomes if (run := each.at(rate_rps)) is not None]


def _mean_input_s(outcomes: Iterable[Outcome], rate_rps: float) -> float | None:
    runs = _runs(outcomes, rate_rps)
    values = [run.latencies["all"].input_s_per_token.mean for run in runs]
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def _mean_best(outcomes: Iterable[Outcome], policy_set: str, scale: float) -> float:
    return mean(each.best_rps[scale] for each in outcomes if each.policy_set == policy_set)


def _by_set(outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    """Outcomes that differ in their seed only, in order."""
    groups: dict[tuple[str, str, str], list[Outcome]] = {}
    for each in outcomes:
        groups.setdefault((each.case, each.variant, each.policy_set), []).append(each)
    return list(groups.values())


def _point(first: Outcome, rate_rps: float, runs: Sequence[Summary], source: str) -> Point:
    def over_seeds(value: Callable[[Summary], float | None]) -> float | None:
        known = [found for each in runs if (found := value(each)) is not None]
        return mean(known) if known else None

    return Point(
        case=first.case,
        variant=first.variant,
        policy_set=first.policy_set,
        rate_rps=rate_rps,
        source=source,
        ttft_p50_s=over_seeds(lambda run: run.latencies[source].ttft_s.p50),
        ttft_p90_s=over_seeds(lambda run: run.latencies[source].ttft_s.p90),
        ttft_p99_s=over_seeds(lambda run: run.latencies[source].ttft_s.p99),
        tpot_p50_s=over_seeds(lambda run: run.latencies[source].tpot_s.p50),
        tpot_p90_s=over_seeds(lambda run: run.latencies[source].tpot_s.p90),
        tpot_p99_s=over_seeds(lambda run: run.latencies[source].tpot_s.p99),
        input_s_per_token=over_seeds(lambda run: run.latencies[source].input_s_per_token.mean),
        output_s_per_token=over_seeds(lambda run: run.latencies[source].output_s_per_token.mean),
        attained=mean(run.latencies[source].attained for run in runs),
        goodput_rps=mean(run.goodput_rps for run in runs),
        utilisation=mean(mean(run.utilisation.values()) for run in runs),
        num_switches=mean(run.num_switches for run in runs),
        num_moves=mean(run.num_moves for run in runs),
        cost_per_1000=over_seeds(lambda run: run.cost_per_1000),
    )


def _spared(first: Outcome, rate_rps: float, runs: Sequence[Summary]) -> Spared:
    return Spared(
        case=first.case,
        variant=first.variant,
        policy_set=first.policy_set,
        rate_rps=rate_rps,
        encoder_hits=mean(run.caches.encoder_hits for run in runs),
        skipped_encodes=mean(run.caches.skipped_encodes for run in runs),
        prefix_hit_tokens=mean(run.caches.prefix_hit_tokens for run in runs),
        pulled_bytes=mean(run.caches.pulled_bytes for run in runs),
    )
