"""Elastic against coupled and static clusters: one trace with a burst of pictures, over gRPC.

    python benchmarks/make_checkpoint.py --preset emulated --out M
    python -m benchmarks.elastic emulated --model M [--rounds 2] [--json FILE]
    python -m benchmarks.elastic computed [--model M] [--rounds 2] [--json FILE]

"emulated": eight devices that take a profile's time. "computed": two instances with a core each. Every round
has a trace of its own and plays it on a fresh cluster of each policy set in turn, every second round in the
reverse order. Requests arrive when the trace says, and times count from then. Goodput is the rate of requests
within both targets. Ratios are to the first set in the same round, then their median: a machine's pace
changes, and less within a round than between rounds.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.elasticity.options import POLICIES, add_options, make_stage, trace_spec
from benchmarks.elasticity.playing import HOST_ROWS, Played, WarmUp, actors_of, play
from benchmarks.elasticity.trace import make_trace
from benchmarks.load.report import describe_machine, medians, ratio_words, ratios
from cli.launch.events import LaunchError
from cli.load.outcomes import Targets, summarize
from cli.targets import parse_slo

_WARM_UP = WarmUp(per_kind=3)
_ROWS = (
    ("text TTFT p50 ms", "text.ttft_ms.p50"),
    ("text TTFT p90 ms", "text.ttft_ms.p90"),
    ("image TTFT p50 ms", "image.ttft_ms.p50"),
    ("image TTFT p90 ms", "image.ttft_ms.p90"),
    ("TPOT p50 ms", "tpot_ms.p50"),
    ("TPOT p90 ms", "tpot_ms.p90"),
    ("goodput/s", "goodput_per_s"),
    ("good share", "good_share"),
    ("text good share", "text.good_share"),
    ("image good share", "image.good_share"),
    ("failed", "failed"),
    ("role switches", "switches"),
    ("rolled back", "rolled_back"),
    *HOST_ROWS,
)


def figures(played: Played, targets: Targets) -> dict[str, Any]:
    """Of one run, for the table and for JSON."""
    return summarize(played.outcomes, targets) | {
        "switches": played.num_switches,
        "rolled_back": played.plan.transitions_rolled_back,
        "cores_busy": {kind: seconds / played.wall_s for kind, seconds in played.cpu_s.items()},
        "pace": asdict(played.pace),
        "instances_first": played.instances_first,
        "ends_as": [str(each.present) for each in played.plan.instances],
    }


def measure(args: argparse.Namespace, console: Console) -> dict[str, list[dict[str, Any]]]:
    """Rounds by policy set."""
    ttft_s, tpot_s, _ = parse_slo(args.slo)
    targets, spec = Targets(ttft_s * 1e3, tpot_s * 1e3), trace_spec(args)
    rounds: dict[str, list[dict[str, Any]]] = {policy: [] for policy in args.policy or POLICIES}
    with tempfile.TemporaryDirectory(prefix="elasticmm-") as folder:
        stage = make_stage(args, Path(folder))
        for number in range(args.rounds):
            seed = args.seed + number
            trace = make_trace(spec, seed)
            for policy in in_turn(list(rounds), number):
                with console.status(f"{policy}: round {number + 1}/{args.rounds}, {len(trace)} requests"):
                    played = play(stage, actors_of(policy), trace, seed, _WARM_UP)
                    rounds[policy].append(figures(played, targets))
    return rounds


def in_turn(policies: Sequence[str], number: int) -> list[str]:
    """The order of a round: no set always comes just before or long after another."""
    return list(reversed(policies)) if number % 2 else list(policies)


def ratios_to_first(rounds: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, float]]:
    first, *others = rounds
    return {f"{policy} / {first}": ratios(rounds[policy], rounds[first]) for policy in others}


def build_table(rounds: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """Medians over rounds, and of the ratios within each."""
    columns = {policy: medians(each) for policy, each in rounds.items()}
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("median over rounds")
    to_first = ratios_to_first(rounds)
    for name in (*columns, *to_first):
        table.add_column(name, justify="right")
    for label, key in _ROWS:
        cells = [_number(each.get(key)) for each in columns.values()]
        table.add_row(label, *cells, *(ratio_words(each.get(key)) for each in to_first.values()))
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}" if value == int(value) or value >= 100 else f"{value:.3g}"


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.elastic",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.add_argument("--rounds", type=int, default=1)
    return parser.parse_args(words)


def main() -> int:
    args = parse_args()
    try:
        rounds = measure(args, Console(stderr=True))
    except (ValueError, LaunchError, RuntimeError) as error:
        print(f"benchmarks.elastic: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    Console(width=None if sys.stdout.isatty() else 160).print(build_table(rounds))
    if args.json is not None:
        about = {
            "command": shlex.join(["python", "-m", "benchmarks.elastic", *sys.argv[1:]]),
            "machine": describe_machine(),
            "trace": asdict(trace_spec(args)),
        }
        args.json.write_text(
            json.dumps(about | {"rounds": rounds, "ratios": ratios_to_first(rounds)}, indent=2) + "\n"
        )
    has_failed = any(each["failed"] for rounds_of in rounds.values() for each in rounds_of)
    return 1 if has_failed else 0


if __name__ == "__main__":
    sys.exit(main())
