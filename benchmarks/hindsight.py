"""How near policies come to the best schedule of forms in hindsight, in simulation.

    python -m benchmarks.hindsight SCENARIO.toml --case NAME [--variant NAME] [--rate R ...] [--seed N ...]
        [--engine emp] [--data FOLDER] [--jobs N] [--json FILE]

The schedule knows the workload beforehand. It is the best found among those that are piecewise constant in
time: phases begin and end with the bursts (a trace without bursts has twelve equal windows, a steady mix is
one phase), and in each the cluster has one form of `benchmarks.plans.family`: one shared group EPD, EP+D,
E+PD, ED+P or E+P+D, or text (PD or P+D) apart from media (any of the five), in all sizes. Requests are
dispatched as emp does it, and instances change by the simulator's transitions, a tenth of a second each
after what has to drain or move; the change begins with the phase.

The search runs at one rate: all forms on the first requests of a calm and of a burst phase, the best ones
as constants over the whole run, then coordinate ascent: calm phases share one form and burst phases share
one, then each phase has its own. So it is a lower bound of the best in hindsight within the family, and no
bound at all for what changes more often than the workload does. The rate is 1.05 times the best one of the
sets beside it unless given. Then the highest rate at which the schedule attains the scenario's share is
searched as for any set.

One case and seed takes about ten minutes of one core; --jobs spreads seeds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.plans.ascent import search
from benchmarks.plans.report import Row, Tried, described, table
from benchmarks.plans.trial import Schedule, Trial
from coordinator.policy.forms import forms_name
from simulator.metrics import meets
from simulator.scenario import case_profile, read_scenario
from simulator.search import best_rate
from simulator.sweep import Task, simulate, tasks
from simulator.workload.spec import Workload

BESIDE = ("coupled", "replicas", "emp")  # as far as the scenario has them
MARGIN = 1.05  # over the best rate beside: where one schedule still differs from another


@dataclass(frozen=True, slots=True)
class SeedTask:
    """One seed; `sets` are run beside the schedules, `engine` is the set whose engine these have."""

    engine: Task
    sets: tuple[Task, ...]
    rates_rps: tuple[float, ...]


def run(task: SeedTask) -> list[Row]:
    """A row per rate that is searched at."""
    engine = task.engine
    profile = engine.variant.profile(case_profile(engine.case, engine.scenario_folder))
    workload = Workload(engine.variant.workload(engine.case.workload), engine.data_folder, engine.seed)
    trial = Trial(engine.scenario, engine.case, engine.policy_set, profile, workload.requests)

    def attained(each: Task, rate_rps: float) -> float:
        requests = trial.requests(rate_rps)
        records = simulate(each.scenario, each.case, each.policy_set, profile, requests).records
        return sum(meets(one, each.case.slo[one.source], 1.0) for one in records) / len(records)

    beside = {
        each.policy_set.name: _best(engine, lambda rate, each=each: attained(each, rate))  # type: ignore[misc]
        for each in task.sets
    }
    rates = task.rates_rps or (
        MARGIN * (max(beside.values(), default=0.0) or engine.scenario.rates(engine.case)[0]),
    )
    return [_row(engine, trial, rate, beside) for rate in rates]


def _row(engine: Task, trial: Trial, rate_rps: float, beside: dict[str, float]) -> Row:
    best = search(trial, rate_rps)

    def tried(schedule: Schedule) -> Tried:
        starts_s = [phase.start_s for phase in trial.phases(rate_rps)]
        return Tried(
            phases=tuple(zip(starts_s, map(forms_name, schedule), strict=True)),
            attained=trial.score(schedule, rate_rps).attained,
            best_rps=_best(engine, lambda rate: trial.score(schedule, rate).attained, rate_rps / 2),
        )

    constant, schedule = tried(best.constant), tried(best.schedule)
    return Row(engine.seed, rate_rps, beside, constant, schedule, trial.num_runs)


def _best(task: Task, attained: Callable[[float], float], above_rps: float = 0.0) -> float:
    """Rates of the scenario over `above_rps`, or all where not even the first of these will do."""
    scenario, rates = task.scenario, task.scenario.rates(task.case)
    upper = [rate for rate in rates if rate > above_rps]
    if upper and attained(upper[0]) >= scenario.attainment:
        rates = tuple(upper)
    return best_rate(attained, rates, scenario.attainment, scenario.refine_steps)


def seed_tasks(options: argparse.Namespace) -> list[SeedTask]:
    """Raises ScenarioError, and ValueError for a name that is not in the scenario."""
    scenario, folder = read_scenario(options.scenario), options.scenario.parent
    present = {each.name for each in scenario.sets}

    def chosen(names: Sequence[str], seed: int) -> list[Task]:
        variants = [options.variant or scenario.variants[0].name]
        return tasks(
            scenario,
            folder,
            options.data or folder,
            sets=names,
            cases=[options.case],
            variants=variants,
            seeds=[seed],
        )

    beside = [name for name in BESIDE if name in present]
    return [
        SeedTask(
            engine=chosen([options.engine], seed)[0],
            sets=tuple(chosen(beside, seed)) if beside else (),
            rates_rps=tuple(options.rate),
        )
        for seed in options.seed or scenario.seeds
    ]


def run_all(todo: Sequence[SeedTask], jobs: int) -> Iterator[Row]:
    """In the order of the tasks, as they end."""
    if jobs == 1:
        for task in todo:
            yield from run(task)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(todo)), mp_context=context) as pool:
        for rows in pool.map(run, todo):
            yield from rows


def as_json(options: argparse.Namespace, rows: Sequence[Row]) -> dict[str, Any]:
    shares = [share for row in rows if (share := row.share("emp")) is not None]
    return {
        "scenario": options.scenario.stem,
        "case": options.case,
        "variant": options.variant,
        "rows": [asdict(row) | {"best_rps": row.best_rps, "emp_share": row.share("emp")} for row in rows],
        "mean_emp_share": sum(shares) / len(shares) if shares else None,
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenario", type=Path)
    parser.add_argument("--case", required=True)
    parser.add_argument("--variant", help="default: the scenario's first")
    parser.add_argument("--rate", type=float, nargs="+", default=[], help="search at these instead")
    parser.add_argument("--seed", type=int, nargs="+", default=[], help="these instead")
    parser.add_argument(
        "--engine", default="emp", help="the set whose discipline and caches schedules run on"
    )
    parser.add_argument("--data", type=Path, help="default: the scenario's folder")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    rows: list[Row] = []
    for row in run_all(seed_tasks(options), options.jobs):
        print(described(row), flush=True)
        rows.append(row)
    Console(highlight=False).print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(as_json(options, rows), indent=2) + "\n")


if __name__ == "__main__":
    main()
