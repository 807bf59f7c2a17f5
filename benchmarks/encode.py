"""What encoding holds up: prefill, text, small pictures, and the engine's own steps.

    python -m benchmarks.make_checkpoint --preset emulated --out M
    python -m benchmarks.make_checkpoint --preset 120m --out N
    python -m benchmarks.encode workers [--model DIR] --pictures M
    python -m benchmarks.encode pauses
    python -m benchmarks.encode pipeline --emulated M --computed N
    python -m benchmarks.encode storm --emulated M --computed N

"workers": decode steps while a thread or a process decodes and preprocesses pictures. "pauses": how long a
thread waits for Python's lock while another decodes one, by kind of file. "pipeline": a request of six large
pictures, prefilled as embeddings come, after all of them, and as an ideal pipeline of the same measured times
would. "storm": 90th percentiles of text while pictures pour in on an instance of their own, and of small
pictures with large ones in between. Figures are medians over rounds that alternate.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.load.report import describe_machine
from cli.devices import choose_cores
from cli.launch.events import LaunchError
from cli.launch.plan import LaunchPlan

_PROFILE = "a800-qwen2.5-vl-7b"
Rows = list[dict[str, Any]]


def workers(args: argparse.Namespace) -> Rows:
    import torch

    from benchmarks.encoding.beside import Beside, Steps, executors, measure
    from benchmarks.encoding.files import FORMATS, SIZES, make_file
    from cli.model_folder import model_folder
    from stage_servers.engine.loader import load_model

    torch.set_num_threads(1)
    steps, rows = Steps(load_model(model_folder(args.model))), []
    with executors(args.pictures) as ways:
        for kind in FORMATS:
            for size in SIZES:
                data = make_file(kind, *size)
                found: dict[str, list[Beside]] = {way: [] for way in ways}
                for _ in range(args.rounds):
                    for way, executor in ways.items():
                        found[way].append(measure(steps, data, executor, args.seconds))
                rows += [_worker_row(f"{kind} {size[0]}x{size[1]}", *each) for each in found.items()]
    return rows


def _worker_row(picture: str, way: str, rounds: Sequence[Any]) -> dict[str, Any]:
    return {
        "picture": picture,
        "beside the steps": way,
        "picture ms": median(each.picture_s for each in rounds) * 1e3,
        **{
            f"step {name} ms": median(each.steps_ms[name] for each in rounds)
            for name in ("p50", "p90", "p99", "max")
        },
    }


def pauses(args: argparse.Namespace) -> Rows:
    from benchmarks.encoding.pauses import KINDS, SIZES, measure_pauses

    found = [measure_pauses(kind, size, args.rounds) for kind in KINDS for size in SIZES]
    return [
        {
            "file": each.kind,
            "megapixels": each.pixels / 1e6,
            "decode ms": each.decode_s * 1e3,
            "longest pause ms": each.longest_s * 1e3,
        }
        for each in found
    ]


def pipeline(args: argparse.Namespace) -> Rows:
    from benchmarks.encoding import pipelined

    savings = []
    if args.emulated is not None:
        with tempfile.TemporaryDirectory(prefix="elasticmm-") as folder:
            plan = _plan(args, args.emulated)
            savings += [
                pipelined.emulated(plan, args.profile, ratio, args.rounds, Path(folder))
                for ratio in pipelined.RATIOS
            ]
    if args.computed is not None:
        savings.append(pipelined.computed(_plan(args, args.computed), args.rounds))
    return [
        {
            "case": each.case,
            "encode ms": each.encode_s * 1e3,
            "prefill of all ms": each.prefill_s * 1e3,
            "blocking ms": each.blocking_s * 1e3,
            "ours ms": each.ours_s * 1e3,
            "ideal ms": each.ideal_s * 1e3,
            "share of the ideal's saving": each.share,
        }
        for each in savings
    ]


def storm(args: argparse.Namespace) -> Rows:
    from benchmarks.encoding import cases
    from benchmarks.encoding.storm import measure

    found = []
    for case in cases.EMULATED if args.emulated is not None else ():
        if args.only not in case.name:
            continue
        device = f"emulated:{args.profile}"
        found += measure(case, _plan(args, args.emulated, device), args.rounds, args.seed)
    for case in cases.COMPUTED if args.computed is not None else ():
        found += measure(case, _plan(args, args.computed), args.rounds, args.seed)
    return [
        {
            "case": each.case,
            "encode order": each.encode_order,
            "p90 without ms": median(each.without_s) * 1e3,
            "p90 with ms": median(each.with_s) * 1e3,
            "with / without": each.ratio,
            "storm p50 ms": each.storm_p50_s * 1e3,
        }
        for each in found
    ]


def _plan(args: argparse.Namespace, model: Path, device: str = "cpu") -> LaunchPlan:
    return LaunchPlan(
        cluster="benchmark",
        model=model.resolve(),
        devices=(device,),
        cores=choose_cores(args.cores),
        profile=args.profile if device != "cpu" else None,
        log_level="WARNING",
    )


def build_table(rows: Rows) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    for name, value in rows[0].items():
        table.add_column(name, justify="left" if isinstance(value, str) else "right")
    for row in rows:
        table.add_row(*(value if isinstance(value, str) else f"{value:.3g}" for value in row.values()))
    return table


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.encode",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = parser.add_subparsers(dest="part", required=True)
    beside = parts.add_parser("workers")
    beside.add_argument("--model", type=Path, help="that steps; default: the demo model")
    beside.add_argument("--pictures", type=Path, required=True, help="folder whose processor prepares")
    beside.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    beside.set_defaults(take=workers, rounds=3)
    parts.add_parser("pauses").set_defaults(take=pauses, rounds=7)
    for name, take in (("pipeline", pipeline), ("storm", storm)):
        part = parts.add_parser(name)
        part.add_argument("--emulated", type=Path, metavar="DIR", help="model of emulated devices")
        part.add_argument("--computed", type=Path, metavar="DIR", help="model of computing instances")
        part.add_argument("--profile", default=_PROFILE, help=f"of emulated devices; default: {_PROFILE}")
        part.add_argument("--cores", help="of computing instances, such as 0-3")
        part.add_argument("--seed", type=int, default=0)
        part.set_defaults(take=take, rounds=5)
    parts.choices["storm"].add_argument("--only", default="", help="emulated cases with this in their name")
    for part in parts.choices.values():
        part.add_argument("--rounds", type=int, default=argparse.SUPPRESS)
        part.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    return parser.parse_args(words)


def main() -> int:
    args = parse_args()
    take: Callable[[argparse.Namespace], Rows] = args.take
    try:
        rows = take(args)
    except (ValueError, LaunchError, RuntimeError) as error:
        print(f"benchmarks.encode: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    if not rows:
        print("benchmarks.encode: name a model with --emulated or --computed", file=sys.stderr)
        return 2
    Console(width=None if sys.stdout.isatty() else 160).print(build_table(rows))
    if args.json is not None:
        about = {
            "command": shlex.join(["python", "-m", "benchmarks.encode", *sys.argv[1:]]),
            "machine": describe_machine(),
        }
        args.json.write_text(json.dumps(about | {"rows": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
