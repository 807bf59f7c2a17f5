"""The highest rate at which 90% of requests are in time, live on eight emulated devices, by policy set.

    python -m benchmarks.make_checkpoint --preset emulated --out M
    python -m benchmarks.best_rates simulated --json FILE [--case image-burst]… [--seed 1]…
    python -m benchmarks.best_rates emulated --model M --json FILE --resume [--minutes 12]

Cases, targets and policy sets are those of scenarios/emulated.toml. One trace per case and seed, of which
lower rates have fewer requests, or the same ones further apart where it is read from a file; rates are 5%
apart. Per policy set and seed the simulator says where to begin, and live runs, each on a fresh cluster, go
up or down from there until one rate is enough and the next is not. Sets take turns, run by run, on the same
traces. "simulated" does only what costs no live run, "emulated" what of that is missing, too.

FILE is written after every run; with --resume what stands there is not run again. Times are those of the
trace, whatever the time scale; policies keep their own time (ticks, dwells, forecasts) in real seconds, live
as in the simulator beside it. The machine must not be what is measured: "cores" should add up to well under
what it has, and what its host adds to a lone request and step, told apart, to little of the targets.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from benchmarks.ablation import figures, live_figures, make_stage
from benchmarks.elasticity.playing import WarmUp, actors_of, play
from benchmarks.elasticity.simulating import host_costs
from benchmarks.load.report import describe_machine
from benchmarks.rates.book import LIVE, SIMULATED, Book, Run, Search, read_book
from benchmarks.rates.found import best_rates, is_enough
from benchmarks.rates.report import figures_table, rates_table
from benchmarks.rates.search import bracket, next_place
from benchmarks.rates.slowed import simulate_slowed
from benchmarks.rates.traces import RESOLUTION, Traces, grid, traces
from cli.launch.events import LaunchError
from simulator.scenario import CaseSpec, ScenarioError, SetSpec, read_scenario
from simulator.workload.errors import WorkloadError

_T = TypeVar("_T", CaseSpec, SetSpec)
EMULATED = "emulated"
_SCENARIO = Path(__file__).parents[1] / "scenarios" / "emulated.toml"
_SETS = ("replicas", "emp")
_WARM_UP = WarmUp(per_kind=2, gap_s=0.25)


class Bench:
    """Plays searches' traces on both sides and keeps the book."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Raises ValueError naming the option, ScenarioError."""
        self.args = args
        self.scenario = read_scenario(_SCENARIO)
        usual = [each.name for each in self.scenario.cases if each.workload.trace is None]
        self.cases = _chosen("case", self.scenario.cases, args.case or usual)
        self.sets = _chosen("policy", self.scenario.sets, args.policy or _SETS)
        _check(args, self.cases.values())
        about = {
            "time_scale": args.time_scale,
            "resolution": RESOLUTION,
            "cluster": asdict(self.scenario.cluster),
            "cases": {each.name: asdict(each) for each in self.scenario.cases},
        }
        is_there = args.resume and args.json is not None and args.json.exists()
        self.book = read_book(args.json, about) if is_there else Book(about)
        self.traces = lru_cache(maxsize=4)(self._traces)

    def searches(self, seed: int) -> list[Search]:
        return [Search(case, seed, name) for case in self.cases for name in self.sets]

    def rates(self, case: CaseSpec) -> list[float]:
        rates = self.scenario.rates(case)
        return grid(rates[0], rates[-1])

    def _traces(self, case: str, seed: int) -> Traces:
        spec = self.cases[case]
        return traces(spec, self.args.data or Path(), self.rates(spec), seed)

    def next_of(self, search: Search, side: str) -> int | None:
        """The place to run next; None where the best rate is known, or enough was tried."""
        rates = self.rates(self.cases[search.case])
        runs = self.book.of(search, side)
        if side == LIVE and len(runs) >= self.args.most_runs:
            return None
        guess = len(rates) // 2
        if side == LIVE:
            simulated = is_enough(self.book.of(search, SIMULATED), self.scenario.attainment)
            guess = bracket(simulated, len(rates))[0]
        return next_place(is_enough(runs, self.scenario.attainment), guess, len(rates))

    def simulate(self, search: Search) -> None:
        """The whole search in the simulator."""
        case = self.cases[search.case]
        while (place := self.next_of(search, SIMULATED)) is not None:
            trace = self.traces(search.case, search.seed).at(place)
            chosen, scale = self.sets[search.policy_set], self.args.time_scale
            done = simulate_slowed(self.scenario, case, chosen, trace, scale)
            self._note(
                search, SIMULATED, place, figures(done.outcomes, case) | {"switches": done.num_switches}
            )

    def play(self, search: Search, place: int) -> None:
        """One live run. Raises LaunchError."""
        case = self.cases[search.case]
        trace = self.traces(search.case, search.seed).at(place)
        with tempfile.TemporaryDirectory(prefix="elasticmm-") as folder:
            stage = make_stage(self.scenario, case, self.args.model, self.args.time_scale, Path(folder))
            played = play(stage, actors_of(search.policy_set), trace, search.seed, _WARM_UP)
        host = host_costs(stage, played.warm_up)
        of_host = {
            "host_ms": host.request_s * 1e3,
            "host_step_ms": host.step_s * 1e3,
            "pace": asdict(played.pace),
        }
        self._note(search, LIVE, place, live_figures(played, case) | of_host)

    def _note(self, search: Search, side: str, place: int, found: dict[str, Any]) -> None:
        rate_rps = self.rates(self.cases[search.case])[place]
        self.book.runs.append(Run(search, side, place, rate_rps, found["good_share"], found))
        if self.args.json is not None:
            self.book.write(self.args.json, **described(self))

    def best(self) -> list[dict[str, Any]]:
        """Of the searches in the book that belong to the cases at hand."""
        found = []
        for case in self.cases.values():
            own = Book({}, [each for each in self.book.runs if each.search.case == case.name])
            found += best_rates(own, self.scenario.attainment, len(self.rates(case)))
        return found


def described(bench: Bench) -> dict[str, Any]:
    """What a file says before its runs."""
    command = shlex.join(["python", "-m", "benchmarks.best_rates", *sys.argv[1:]])
    best = [{key: value for key, value in each.items() if key != "figures"} for each in bench.best()]
    return {"command": command, "machine": describe_machine(), "best": best}


def turns(bench: Bench, seed: int, end_s: float) -> Iterator[tuple[Search, int]]:
    """Live runs in order: one of each search in turn; none begins after `end_s`."""
    while todo := [each for each in bench.searches(seed) if bench.next_of(each, LIVE) is not None]:
        for search in todo:
            if time.monotonic() > end_s:
                return
            place = bench.next_of(search, LIVE)
            assert place is not None
            yield search, place


def measure(bench: Bench, console: Console) -> None:
    """Seed by seed. Raises LaunchError."""
    args = bench.args
    end_s = time.monotonic() + (args.minutes or float("inf")) * 60
    seeds = args.seed or list(bench.scenario.seeds)
    for seed in seeds:
        for search in bench.searches(seed):
            if time.monotonic() <= end_s:
                with console.status(f"simulated: {search.case}, seed {seed}, {search.policy_set}"):
                    bench.simulate(search)
        if args.side == EMULATED:
            measure_live(bench, console, seed, end_s)
    if args.side == EMULATED and time.monotonic() > end_s:
        console.print("time is up: go on with --resume")


def measure_live(bench: Bench, console: Console, seed: int, end_s: float) -> None:
    for search, place in turns(bench, seed, end_s):
        with console.status(f"live: {search.case}, seed {seed}, {search.policy_set}, rate {place}"):
            bench.play(search, place)
        run = bench.book.runs[-1]
        console.print(f"{search.case} {seed} {search.policy_set}: {run.rate_rps:.1f}/s {run.attained:.1%}")


def _chosen(option: str, there: Sequence[_T], names: Sequence[str]) -> dict[str, _T]:
    by_name = {each.name: each for each in there}
    for name in names:
        if name not in by_name:
            raise ValueError(f"{option}: {name!r} is none of {', '.join(by_name)}")
    return {name: by_name[name] for name in names}


def _check(args: argparse.Namespace, cases: Iterable[CaseSpec]) -> None:
    if args.side == EMULATED and args.model is None:
        raise ValueError("model: live runs need a folder, see make_checkpoint")
    if args.resume and args.json is None:
        raise ValueError("resume: name the file with --json")
    if not args.time_scale > 0:
        raise ValueError(f"time-scale: should be above 0, is {args.time_scale:g}")
    for each in cases:
        if each.workload.trace is not None and args.data is None:
            raise ValueError(f"data: case {each.name!r} needs a folder of recorded traces")


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.best_rates",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("side", choices=(EMULATED, SIMULATED), help="live on emulated devices, or not")
    parser.add_argument("--model", type=Path, help="folder of a checkpoint for emulated devices")
    parser.add_argument("--case", action="append", help="repeatable; default: all that need no --data")
    parser.add_argument("--policy", action="append", help=f"repeatable; default: {', '.join(_SETS)}")
    parser.add_argument("--seed", type=int, action="append", help="repeatable; default: the scenario's")
    parser.add_argument("--data", type=Path, help="folder of recorded traces")
    parser.add_argument("--time-scale", type=float, default=3.0, help="devices and trace X times slower")
    parser.add_argument("--most-runs", type=int, default=5, help="live ones of one set and seed")
    parser.add_argument("--minutes", type=float, help="after which no live run begins")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all runs there, as they end")
    parser.add_argument("--resume", action="store_true", help="go on with the runs of that file")
    return parser.parse_args(words)


def main() -> int:
    args = parse_args()
    try:
        bench = Bench(args)
        measure(bench, Console(stderr=True))
    except (ValueError, ScenarioError, WorkloadError, LaunchError, RuntimeError) as error:
        print(f"benchmarks.best_rates: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(rates_table(bench.best()))
    for case in bench.cases:
        console.print(figures_table(bench.best(), case))
    has_failed = any(each.figures["failed"] for each in bench.book.runs if each.side == LIVE)
    return 1 if has_failed else 0


if __name__ == "__main__":
    sys.exit(main())
