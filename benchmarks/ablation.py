"""What the unified cache and non-blocking encoding are worth on a live cluster of emulated devices.

    python benchmarks/make_checkpoint.py --preset emulated --out M
    python -m benchmarks.ablation --model M --case "sharegpt-4o, repeats" --rate 144 [--data DIR] [--json F]

Cases, policy sets, targets and profiles are those of scenarios/cache.toml, which the simulator plays over the
same policies; here coordinator, messages, books and caches are the real ones, and only the devices' time is
made up. Every set plays the same requests on a fresh cluster with empty caches, in turn, and the simulator
plays them beside it, with prompts as long as the live cluster counted them. Times are those of the trace,
whatever the time scale. Take one at which "cores busy" adds up to well under what the machine has, else the
machine is measured: of eight instances on two cores, 6 and more.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.elasticity.emulated import with_emulated
from benchmarks.elasticity.playing import Actors, Played, Stage, WarmUp, play
from benchmarks.elasticity.simulating import as_sent, outcome_of
from benchmarks.load.report import describe_machine, medians
from cli.launch.events import LaunchError
from cli.launch.plan import LaunchPlan
from cli.limits import Limits
from cli.load.outcomes import Outcome, Targets, summarize
from coordinator.policy.scheduler import LATE_WAIT_S
from core.profile_file import load_profile
from simulator.scenario import CaseSpec, Scenario, ScenarioError, SetSpec, aims, read_scenario
from simulator.sweep import simulate
from simulator.workload.errors import WorkloadError
from simulator.workload.request import Request
from simulator.workload.spec import Workload

_T = TypeVar("_T", CaseSpec, SetSpec)
_SCENARIO = Path(__file__).parents[1] / "scenarios" / "cache.toml"
_SETS = ("own pictures first", "own pictures first, cache", "non-blocking", "both")
_MOST_PICTURES = 256  # of one recorded request
_MOST_WAITING = 100_000  # as in the simulator, nobody is turned away
_WARM_UP = WarmUp(per_kind=2, gap_s=0.25)
_ROWS = (
    ("text TTFT p50 ms", "text.ttft_ms.p50"),
    ("text TTFT p90 ms", "text.ttft_ms.p90"),
    ("image TTFT p50 ms", "image.ttft_ms.p50"),
    ("image TTFT p90 ms", "image.ttft_ms.p90"),
    ("TPOT p90 ms", "tpot_ms.p90"),
    ("good share", "good_share"),
    ("goodput/s", "goodput_per_s"),
    ("failed", "failed"),
    ("of these in a cache", "cached_media"),
    ("prompt tokens in a cache", "cached_tokens"),
    ("role switches", "switches"),
    ("cores: coordinator", "cores_busy.coordinator"),
    ("cores: instances", "cores_busy.instances"),
    ("cores: load", "cores_busy.load"),
)


def actors(chosen: SetSpec) -> Actors:
    """The scenario's policy set on a live cluster. Raises ValueError where there is no such thing."""
    if chosen.without:
        raise ValueError(f"set: {chosen.name!r} switches off pieces of a policy, which is simulated only")
    if chosen.encoding == "inline":
        raise ValueError(f"set: {chosen.name!r} decodes pictures in the engine, which is simulated only")
    is_text_first = chosen.engine_discipline == "text-first"
    return Actors(
        chosen.name,
        chosen.policy_name,
        prompt_order="text-first" if is_text_first else "arrival",
        encode_order="shortest" if is_text_first else "arrival",
        encoding=chosen.encoding,
        prefix_cache=chosen.unified_cache,
    )


def make_trace(case: CaseSpec, data: Path, rate_rps: float, duration_s: float, seed: int) -> list[Request]:
    """The first so many seconds of the case's workload. Raises WorkloadError."""
    requests = Workload(case.workload, data, seed).requests(rate_rps)
    start_s = requests[0].arrival_s
    moved = [replace(each, arrival_s=each.arrival_s - start_s) for each in requests]
    return [each for each in moved if each.arrival_s < duration_s]


def figures(outcomes: Sequence[Outcome], case: CaseSpec) -> dict[str, Any]:
    """Of one run; requests are held against the targets of their kind."""
    by_kind = {kind: [each for each in outcomes if each.kind == kind] for kind in ("text", "image")}
    parts = {kind: summarize(each, _targets(case, kind)) for kind, each in by_kind.items() if each}
    num_good = sum(part["good_share"] * part["requests"] for part in parts.values())
    whole = summarize(outcomes, Targets())
    return {
        **whole,
        **parts,
        "good_share": num_good / len(outcomes),
        "goodput_per_s": num_good / whole["duration_s"],
    }


def live_figures(played: Played, case: CaseSpec) -> dict[str, Any]:
    return {
        **figures(played.outcomes, case),
        "cached_media": _sum(played.outcomes, "cached_media"),
        "cached_tokens": _sum(played.outcomes, "cached_tokens"),
        "switches": played.num_switches,
        "instances_first": played.instances_first,
        "cores_busy": {kind: seconds / played.wall_s for kind, seconds in played.cpu_s.items()},
    }


def simulated_figures(
    scenario: Scenario, case: CaseSpec, chosen: SetSpec, trace: Sequence[Request], played: Played
) -> dict[str, Any]:
    """Of the same requests, on the same devices at their true speed."""
    sent = as_sent(trace, played.outcomes)
    result = simulate(scenario, case, chosen, load_profile(case.profile), sent)
    indices = {each.request_id: index for index, each in enumerate(sent)}
    return {
        **figures([outcome_of(each, indices) for each in result.records], case),
        "cached_media": result.caches.encoder_hits + result.caches.skipped_encodes,
        "cached_tokens": result.caches.prefix_hit_tokens,
        "switches": result.num_switches,
    }


def _targets(case: CaseSpec, kind: str) -> Targets:
    aim = aims(case)
    ttft_s = aim.ttft_s if kind == "text" or aim.multimodal_ttft_s is None else aim.multimodal_ttft_s
    return Targets(ttft_s * 1e3, aim.tpot_s * 1e3)


def _sum(outcomes: Sequence[Outcome], name: str) -> int:
    return sum(getattr(each, name) for each in outcomes)


def make_stage(scenario: Scenario, case: CaseSpec, model: Path, time_scale: float, folder: Path) -> Stage:
    """Devices of the case's profile; targets and the wait of late requests by the clock of the trace.

    `folder` is for a slowed profile.
    """
    aim = aims(case)
    targets = (aim.ttft_s, aim.tpot_s, aim.multimodal_ttft_s or aim.ttft_s)
    plan = LaunchPlan(
        cluster="benchmark",
        model=model,
        slo=",".join(f"{each * time_scale:g}" for each in targets),
        limits=Limits(
            max_waiting=_MOST_WAITING, max_media=_MOST_PICTURES, late_wait=LATE_WAIT_S * time_scale
        ),
        log_level="WARNING",
    )
    plan = with_emulated(plan, case.profile, time_scale, folder)
    return Stage(plan, "coupled", scenario.cluster.instances, case.profile, time_scale)


def measure(args: argparse.Namespace, console: Console) -> dict[str, list[dict[str, Any]]]:
    """Rounds by policy set, each live and simulated."""
    scenario = read_scenario(_SCENARIO)
    case = with_popular(_named("case", args.case, scenario.cases), args.popular)
    sets = [_named("set", name, scenario.sets) for name in args.set or _SETS]
    rounds: dict[str, list[dict[str, Any]]] = {each.name: [] for each in sets}
    with tempfile.TemporaryDirectory(prefix="elasticmm-") as folder:
        stage = make_stage(scenario, case, args.model, args.time_scale, Path(folder))
        for number in range(args.rounds):
            trace = make_trace(case, args.data, args.rate, args.duration, args.seed + number)
            for chosen in sets:
                with console.status(
                    f"{chosen.name}: round {number + 1}/{args.rounds}, {len(trace)} requests"
                ):
                    played = play(stage, actors(chosen), trace, args.seed + number, _WARM_UP)
                    simulated = simulated_figures(scenario, case, chosen, trace, played)
                rounds[chosen.name].append({"live": live_figures(played, case), "simulated": simulated})
    return rounds


def with_popular(case: CaseSpec, most: int | None) -> CaseSpec:
    """With so many pictures that repeat; None: as many as the case has. Raises ValueError."""
    if most is None:
        return case
    if case.workload.repeats is None:
        raise ValueError(f"popular: no picture repeats in {case.name!r}")
    repeats = replace(case.workload.repeats, most=most)
    return replace(case, workload=replace(case.workload, repeats=repeats))


def _named(what: str, name: str, found: Sequence[_T]) -> _T:
    by_name = {each.name: each for each in found}
    if name not in by_name:
        raise ValueError(f"{what}: {name!r} is none of {', '.join(by_name)}")
    return by_name[name]


def build_table(rounds: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """Medians over rounds."""
    columns = {name: medians(each) for name, each in rounds.items()}
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("median over rounds")
    for name in columns:
        table.add_column(f"{name}: live", justify="right")
        table.add_column("simulated", justify="right")
    for label, key in _ROWS:
        keys = [f"{side}.{key}" for side in ("live", "simulated")]
        cells = [each.get(key) for each in columns.values() for key in keys]
        table.add_row(label, *("" if cell is None else f"{cell:,.4g}" for cell in cells))
    return table


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model", type=Path, required=True, help="folder of a checkpoint for emulated devices"
    )
    parser.add_argument("--case", required=True, help="of scenarios/cache.toml")
    parser.add_argument("--rate", type=float, required=True, help="requests per second of the trace")
    parser.add_argument("--set", action="append", help=f"repeatable; default: {', '.join(_SETS)}")
    parser.add_argument(
        "--data", type=Path, default=Path(), help="folder of recorded traces, for cases that need one"
    )
    parser.add_argument("--popular", type=int, help="pictures that repeat; default: as the case has it")
    parser.add_argument("--duration", type=float, default=20.0, help="seconds of the trace")
    parser.add_argument("--time-scale", type=float, default=6.0, help="devices and trace X times slower")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    return parser.parse_args(words)


def main() -> int:
    args = parse_args()
    try:
        rounds = measure(args, Console(stderr=True))
    except (ValueError, ScenarioError, WorkloadError, LaunchError, RuntimeError) as error:
        print(f"benchmarks.ablation: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    Console(width=None if sys.stdout.isatty() else 160).print(build_table(rounds))
    if args.json is not None:
        about = {
            "command": shlex.join(["python", "-m", "benchmarks.ablation", *sys.argv[1:]]),
            "machine": describe_machine(),
        }
        args.json.write_text(json.dumps(about | {"rounds": rounds}, indent=2) + "\n")
    return 1 if any(each["live"]["failed"] for rounds_of in rounds.values() for each in rounds_of) else 0


if __name__ == "__main__":
    sys.exit(main())
