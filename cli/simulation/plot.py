"""A sweep as a picture: latency and attainment against rate, and who played what in one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.report import Point
    from simulator.result import RoleSpan, RunResult
    from simulator.scenario import Scenario
    from simulator.sweep import Outcome, Task

_STAGE_COLOURS = {
    "e": "#e07b39",
    "p": "#3b75af",
    "d": "#519e3e",
    "ep": "#8d69b8",
    "ed": "#c4b03a",
    "pd": "#3aa6a6",
    "epd": "#8a8a8a",
}
_GROUP_HATCHES = {"text": "", "multimodal": "////", "shared": ".."}

_CURVES: dict[str, Callable[[Point], float | None]] = {
    "TTFT p90, s": lambda row: row.ttft_p90_s,
    "TPOT p90, s": lambda row: row.tpot_p90_s,
    "attained": lambda row: row.attained,
}


class PlotError(ValueError):
    """A picture cannot be drawn here."""


def check_can_plot(path: Path) -> None:
    """Raises PlotError where matplotlib is missing, or no picture can be written there."""
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise PlotError(f"plot: {path} should end in .png, .svg or .pdf")
    if not path.parent.is_dir() or path.is_dir():
        raise PlotError(f"plot: {path} cannot be written (is a folder, or lies in none)")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise PlotError(
            "--plot needs matplotlib, which is not installed (pip install 'elasticmm[plot]')"
        ) from None


def draw(scenario: Scenario, outcomes: Sequence[Outcome], todo: Sequence[Task], path: Path) -> None:
    """One row of curves per case, then a Gantt picture of the run with most switches."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from simulator.report import points

    rates = {case.name: scenario.rates(case) for case in scenario.cases}
    rows = [row for row in points(outcomes, rates.__getitem__) if row.source == "all"]
    variant = rows[0].variant
    cases = list(dict.fromkeys(row.case for row in rows))
    figure, axes = pyplot.subplots(
        len(cases) + 1, 3, figsize=(15, 4 * (len(cases) + 1)), squeeze=False, layout="constrained"
    )
    for line, case in zip(axes, cases, strict=False):
        shown = [row for row in rows if (row.case, row.variant) == (case, variant)]
        _curves(line, case, shown)
    for axis in axes[-1][1:]:
        axis.remove()
    axes[-1][0].remove()
    axis = figure.add_subplot(axes[-1][0].get_gridspec()[-1, :])
    task, rate = _run_to_show(todo, outcomes)
    title = f"{task.case.name}, {task.policy_set.name}, {rate:.3g} requests/s, seed {task.seed}"
    run = _run(task, rate)
    gantt(axis, run.spans, title, {name: use.busy_s / run.duration_s for name, use in run.usage.items()})
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def gantt(
    axis: Any, spans: Sequence[RoleSpan], title: str, utilisation: Mapping[str, float] | None = None
) -> None:
    """Roles by colour, groups by hatching; white is a switch. Utilisation stands beside the names."""
    names = sorted({span.instance_id for span in spans})
    labels: dict[str, Any] = {}
    for span in spans:
        if not span.assignment:
            continue
        group, _, roles = span.assignment.partition(":")
        labels[span.assignment] = axis.barh(
            names.index(span.instance_id),
            span.end_s - span.start_s,
            left=span.start_s,
            color=_STAGE_COLOURS[roles],
            hatch=_GROUP_HATCHES[group],
            edgecolor="white",
            linewidth=0,
        )
    busy = utilisation or {}
    labels_of = [f"{name}, {busy[name]:.0%} busy" if name in busy else name for name in names]
    axis.set_yticks(range(len(names)), labels_of)
    axis.set_xlabel("s")
    axis.set_title(title)
    axis.legend(labels.values(), labels.keys(), loc="upper right", fontsize="small")


def _curves(line: Any, case: str, rows: Sequence[Point]) -> None:
    for axis, (label, value) in zip(line, _CURVES.items(), strict=True):
        for name in dict.fromkeys(row.policy_set for row in rows):
            own = [row for row in rows if row.policy_set == name and value(row) is not None]
            axis.plot([row.rate_rps for row in own], [value(row) for row in own], marker="o", label=name)
        axis.set_xlabel("requests/s")
        axis.set_ylabel(label)
        axis.set_title(case)
        if label != "attained":
            axis.set_yscale("log")
    line[-1].legend(fontsize="small")


def _run_to_show(todo: Sequence[Task], outcomes: Sequence[Outcome]) -> tuple[Task, float]:
    """The run with most switches among first seeds."""
    pairs = [
        (task, each)
        for task, outcome in zip(todo, outcomes, strict=True)
        for each in outcome.summaries
        if task.seed == todo[0].seed
    ]
    task, summary = max(pairs, key=lambda pair: pair[1].num_switches)
    return task, summary.rate_rps


def _run(task: Task, rate_rps: float) -> RunResult:
    from simulator.scenario import case_profile
    from simulator.sweep import simulate
    from simulator.workload.spec import Workload

    profile = task.variant.profile(case_profile(task.case, task.scenario_folder))
    workload = Workload(task.variant.workload(task.case.workload), task.data_folder, task.seed)
    requests = workload.requests(rate_rps)
    return simulate(task.scenario, task.case, task.policy_set, profile, requests)
