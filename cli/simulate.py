"""elasticmm simulate: policy sets compared in virtual time, under the coordinator's own policies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.exits import FAILED, USAGE, fail, print_json
from cli.options import JsonOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulator.scenario import Scenario
    from simulator.sweep import Outcome, Task

ScenarioArgument = Annotated[Path, typer.Argument(metavar="SCENARIO.toml", help="What to simulate.")]
PlotOption = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE.png", help="Draw latency and attainment against rate, and roles."),
]
SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="NAME", help="Only these policy sets.")]
CaseOption = Annotated[list[str] | None, typer.Option("--case", metavar="NAME", help="Only these cases.")]
VariantOption = Annotated[
    list[str] | None, typer.Option("--variant", metavar="NAME", help="Only these variants.")
]
SeedOption = Annotated[
    list[int] | None, typer.Option("--seed", metavar="N", min=0, help="These seeds instead.")
]
RateOption = Annotated[
    list[float] | None,
    typer.Option("--rate", metavar="X", help="These rates (requests/s) instead, of all cases."),
]
ScaleOption = Annotated[
    list[float] | None,
    typer.Option("--scale", metavar="X", help="Score at these scales of the targets instead."),
]
DataOption = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Folder of trace files. Default: the scenario's.")
]
JobsOption = Annotated[
    int | None,
    typer.Option("--jobs", metavar="N", min=1, help="Processes. Default: one per core of this process."),
]
UnloadedOption = Annotated[
    str | None,
    typer.Option(
        "--unloaded", metavar="SET", help="Only print targets: 10 times this set's medians when unloaded."
    ),
]


def run(
    scenario_file: ScenarioArgument,
    *,
    as_json: JsonOption = False,
    plot: PlotOption = None,
    sets: SetOption = None,
    cases: CaseOption = None,
    variants: VariantOption = None,
    seeds: SeedOption = None,
    rates: RateOption = None,
    scales: ScaleOption = None,
    data: DataOption = None,
    jobs: JobsOption = None,
    unloaded: UnloadedOption = None,
) -> None:
    """Simulates a scenario and compares its policy sets: latencies, goodput, switches, cost."""
    from simulator import compiled

    compiled.use()  # before anything of it is imported
    from cli.simulation.plot import check_can_plot, draw
    from cli.simulation.tables import show
    from simulator.config import SimulationError
    from simulator.scenario import narrowed, read_scenario
    from simulator.sweep import tasks

    folders = (scenario_file.parent, data or scenario_file.parent)
    try:
        scenario = narrowed(read_scenario(scenario_file), rates or (), scales or ())
        if plot is not None:
            check_can_plot(plot)
        todo = tasks(
            scenario,
            *folders,
            sets=sets or (),
            cases=cases or (),
            variants=variants or (),
            seeds=seeds or (),
        )
        if unloaded is not None:
            _print_targets(scenario, unloaded, folders, cases or ())
            return
        outcomes = _run(todo, jobs or len(os.sched_getaffinity(0)))
    except ValueError as error:  # of the scenario, the workload, the plot or an option
        fail(str(error), USAGE)
    except SimulationError as error:
        fail(str(error), FAILED)
    if as_json:
        _print_outcomes(scenario, outcomes)
    else:
        show(scenario, outcomes)
    if plot is not None:
        try:
            draw(scenario, outcomes, todo, plot)
        except OSError as error:
            fail(f"plot: {plot} cannot be written ({error.strerror})", FAILED)


def _run(todo: Sequence[Task], jobs: int) -> list[Outcome]:
    """With a bar on a terminal's stderr."""
    from rich.console import Console
    from rich.progress import Progress

    from simulator.sweep import run_tasks

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("simulating", total=len(todo))
        return run_tasks(todo, jobs, lambda _: progress.advance(bar))


def _print_targets(
    scenario: Scenario, set_name: str, folders: tuple[Path, Path], cases: Sequence[str]
) -> None:
    """As lines to put into the scenario."""
    from simulator.unloaded import unloaded_targets

    chosen = [each for each in scenario.sets if each.name == set_name]
    if not chosen:
        raise ValueError(f"unloaded: no set of the scenario is named {set_name!r}")
    for case in scenario.cases:
        if not cases or case.name in cases:
            print(f"# {case.name}: 10 times the unloaded medians of {set_name}")
            for source, target in unloaded_targets(scenario, case, chosen[0], folders, times=10.0).items():
                print(f"slo.{source} = {{ ttft_s = {target.ttft_s:.4f}, tpot_s = {target.tpot_s:.5f} }}")


def _print_outcomes(scenario: Scenario, outcomes: Sequence[Outcome]) -> None:
    from dataclasses import asdict

    from simulator.report import best, compare

    print_json(
        {
            "scenario": scenario.name,
            "outcomes": [asdict(each) for each in outcomes],
            "best": [asdict(each) for each in best(outcomes)],
            "references": [
                asdict(each) | {"is_inside": each.is_inside} for each in compare(scenario, outcomes)
            ],
        }
    )
