"""All runs of a scenario: cases by variants by policy sets by seeds, each over its rates."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from coordinator.policy.scheduler import Scheduler
from core.profile import Profile
from simulator import compiled
from simulator.cluster import Cluster
from simulator.config import ClusterConfig
from simulator.metrics import Summary, summarize
from simulator.result import RunResult
from simulator.scenario import CaseSpec, Scenario, SetSpec, aims, case_profile, narrowed
from simulator.schedulers import build_scheduler
from simulator.search import best_rate
from simulator.unified import UnifiedCache
from simulator.variants import Variant
from simulator.workload.errors import WorkloadError
from simulator.workload.request import Request
from simulator.workload.spec import Workload

_HOPELESS = 0.2  # attainment at the loosest targets after which higher rates tell nothing more
Named = TypeVar("Named", SetSpec, CaseSpec, Variant)


@dataclass(frozen=True, slots=True)
class Task:
    """One row of the sweep; runs in a process of its own."""

    scenario: Scenario
    case: CaseSpec
    variant: Variant
    policy_set: SetSpec
    seed: int
    scenario_folder: Path
    data_folder: Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a task gave: a summary per rate, in rising order, and the best rate per scale of the targets."""

    case: str
    variant: str
    policy_set: str
    seed: int
    summaries: tuple[Summary, ...]
    best_rps: dict[float, float]

    def at(self, rate_rps: float) -> Summary | None:
        """None for a rate that was not run."""
        return next((each for each in self.summaries if each.rate_rps == rate_rps), None)


def tasks(
    scenario: Scenario,
    scenario_folder: Path,
    data_folder: Path,
    *,
    sets: Sequence[str] = (),
    cases: Sequence[str] = (),
    variants: Sequence[str] = (),
    seeds: Sequence[int] = (),
) -> list[Task]:
    """In order of the file; none named means all, as far as sets and variants say so of themselves.

    Raises ValueError for a name that is not there.
    """
    chosen_sets = _chosen("set", scenario.sets, sets)
    chosen_variants = _chosen("variant", scenario.variants, variants)
    return [
        Task(_of_variant(scenario, variant), case, variant, policy_set, seed, scenario_folder, data_folder)
        for case in _chosen("case", scenario.cases, cases)
        for variant in chosen_variants
        for policy_set in chosen_sets
        if variants or not policy_set.variants or variant.name in policy_set.variants
        for seed in seeds or policy_set.seeds or variant.seeds or scenario.seeds
    ]


def _of_variant(scenario: Scenario, variant: Variant) -> Scenario:
    scales = tuple(each for each in scenario.scales if each in (variant.scales or scenario.scales))
    return narrowed(scenario, variant.rates_rps, scales)


def run_tasks(
    todo: Sequence[Task], jobs: int, on_done: Callable[[Outcome], None] = lambda _: None
) -> list[Outcome]:
    """In the order of the tasks; `on_done` is called as they end. Raises what a task raised."""
    if jobs == 1:
        return [_told(run_task(task), on_done) for task in todo]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, max(1, len(todo))), context, initializer=compiled.use) as pool:
        futures = [pool.submit(run_task, task) for task in todo]
        try:
            for future in as_completed(futures):
                on_done(future.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        return [future.result() for future in futures]


def run_task(task: Task) -> Outcome:
    """Rates of the sweep, up to one where all is lost, then the search for the best one per scale."""
    profile = task.variant.profile(case_profile(task.case, task.scenario_folder))
    workload = Workload(task.variant.workload(task.case.workload), task.data_folder, task.seed)
    scenario, case = task.scenario, task.case
    found: dict[float, Summary] = {}

    def summary(rate_rps: float) -> Summary:
        if rate_rps not in found:
            try:
                requests = workload.requests(rate_rps)
            except WorkloadError as error:
                raise WorkloadError(f"case {case.name!r}: {error}") from None
            result = simulate(scenario, case, task.policy_set, profile, requests)
            found[rate_rps] = summarize(result, rate_rps, case.slo, scenario.scales, profile.price_per_hour)
        return found[rate_rps]

    rates = scenario.rates(case)
    loosest = max(scenario.scales)
    for rate in rates:
        if summary(rate).attained[loosest] < _HOPELESS:
            break
    best = {
        scale: best_rate(
            lambda rate, scale=scale: summary(rate).attained[scale],  # type: ignore[misc]
            rates,
            scenario.attainment,
            scenario.refine_steps,
        )
        for scale in scenario.scales
    }
    summaries = tuple(found[rate] for rate in sorted(found))
    return Outcome(case.name, task.variant.name, task.policy_set.name, task.seed, summaries, best)


def simulate(
    scenario: Scenario, case: CaseSpec, policy_set: SetSpec, profile: Profile, requests: Sequence[Request]
) -> RunResult:
    """One run; what it leaves behind is checked to be nothing."""
    caches = UnifiedCache(profile) if policy_set.unified_cache else None
    slo = replace(aims(case), late_wait_s=policy_set.late_wait_s)
    scheduler = build_scheduler(policy_set.policy_name, policy_set.without, profile, slo, caches)
    return simulate_under(
        scheduler, scenario, policy_set, profile, requests, tpot_s=slo.tpot_s, caches=caches
    )


def simulate_under(
    scheduler: Scheduler,
    scenario: Scenario,
    engine: SetSpec,
    profile: Profile,
    requests: Sequence[Request],
    *,
    tpot_s: float,
    caches: UnifiedCache | None = None,
) -> RunResult:
    """As `simulate`, under a scheduler of the caller's on the engine of a set, which heeds `tpot_s`."""
    spec = scenario.cluster
    config = ClusterConfig(
        instances=spec.instances,
        profile=profile,
        discipline=engine.engine_discipline,
        encoding=engine.encoding,
        encoder_cache=engine.encoder_cache,
        prefix_cache=engine.prefix_cache,
        switch_s=spec.switch_s,
        control_s=spec.control_s,
        encode_slice_s=spec.encode_slice_s,
        media_workers=spec.media_workers,
        tpot_s=tpot_s,
    )
    cluster = Cluster(config, scheduler, requests, caches)
    result = cluster.run()
    cluster.check_idle()
    return result


def _told(outcome: Outcome, on_done: Callable[[Outcome], None]) -> Outcome:
    on_done(outcome)
    return outcome


def _chosen(kind: str, present: Sequence[Named], names: Sequence[str]) -> list[Named]:
    by_name = {each.name: each for each in present}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise ValueError(f"{kind}: {unknown[0]!r} is not in the scenario (there: {', '.join(by_name)})")
    return [by_name[name] for name in names] if names else list(present)
