"""How near policies come to the best schedule of forms in hindsight, in simulation.

    python -m benchmarks.hindsight SCENARIO.toml --case NAME [--variant NAME] [--rate R ...] [--seed N ...]
        [--engine emp] [--data FOLDER] [--jobs N] [--json FILE]

The schedule knows the workload beforehand. It is the best found among those that are piecewise constant in
time: phases begin and end with the bursts (a trace without bursts has twelve equal windows, a steady mix is
one phase), and in each the cluster has one form of `benchmarks.plans.family`: one shared group EPD, EP+D,
E+PD, ED+P or E+P+D, or text (PD or P+D) apart from media (any of the five), in all sizes. Requests are
dispatched as emp does it, and instances change by the simulator's transitions, a tenth of a second each
after what has to drain or move; the change begins with the phase.

The search begins at the best rate of the sets beside it, unless given: all forms on the first requests of a
calm and of a burst phase, the best ones as constants over the whole run, then coordinate ascent: calm phases
share one form and burst phases share one, then each phase has its own. It goes on at rates 3% higher each, as
long as the best schedule attains the scenario's share; the highest rate at which it does is then searched as
for any set. So it is a lower bound of the best in hindsight within the family, and no bound at all for what
changes more often than the workload does, or mixes forms within a group.

One case and seed takes about ten minutes of one core; --jobs spreads seeds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.plans.ascent import climb
from benchmarks.plans.report import Row, Tried, described, table
from benchmarks.plans.trial import Schedule, Trial
from coordinator.policy.forms import forms_name
from simulator.scenario import case_profile, read_scenario
from simulator.search import best_rate
from simulator.sweep import Task, tasks
from simulator.workload.spec import Workload

BESIDE = ("coupled", "replicas", "emp")  # as far as the scenario has them
LATEST = 2  # rates of the search whose schedules are tried at others


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

    wanted = engine.scenario.attainment
    beside = {
        spec.name: _best(engine, lambda rate, spec=spec: trial.set_score(spec, rate, wanted).attained)  # type: ignore[misc]
        for spec in (each.policy_set for each in task.sets)
    }
    rates = task.rates_rps or (max(beside.values(), default=0.0) or engine.scenario.rates(engine.case)[0],)
    return [_row(engine, trial, rate, beside) for rate in rates]


def _row(engine: Task, trial: Trial, from_rps: float, beside: dict[str, float]) -> Row:
    latest = climb(trial, from_rps, engine.scenario.rates(engine.case)[-1])[-LATEST:]
    constant = _bears_most(_tried(engine, trial, each.rate_rps, each.constant) for each in latest)
    schedule = _bears_most(_tried(engine, trial, each.rate_rps, each.schedule) for each in latest)
    return Row(engine.seed, from_rps, beside, constant, schedule, trial.num_runs)


def _tried(engine: Task, trial: Trial, rate_rps: float, schedule: Schedule) -> Tried:
    wanted = engine.scenario.attainment
    return Tried(
        phases=tuple(
            (phase.start_s, forms_name(form))
            for phase, form in zip(trial.phases(rate_rps), schedule, strict=True)
        ),
        rate_rps=rate_rps,
        attained=trial.score(schedule, rate_rps).attained,
        best_rps=_best(engine, lambda rate: trial.score(schedule, rate, wanted).attained, rate_rps / 2),
    )


def _bears_most(tried: Iterable[Tried]) -> Tried:
    return max(tried, key=lambda each: each.best_rps)


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
    parser.add_argument(
        "--rate", type=float, nargs="+", default=[], help="searches that begin at these instead"
    )
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
