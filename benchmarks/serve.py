"""Load on a cluster over gRPC: latency, throughput and goodput of text and picture requests.

    python -m benchmarks.serve --address HOST:PORT --concurrency 8
    python -m benchmarks.serve --setup coupled --setup e1p1d1 --rate 2 --image-share 0.5 --rounds 3

With --setup it starts the clusters itself (all of them, then measures them in
turn, round by round) and prints medians over rounds and ratios to the first.
A set-up is a topology and settings: "e1p1d1 transport=grpc threads=1".
--rate makes an open loop (Poisson arrivals; times count from the planned
arrival), else --concurrency requests are kept running.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.load.driver import DriveSpec, drive
from benchmarks.load.report import build_report, build_table
from benchmarks.load.setups import parse_setup, running
from cli.devices import choose_cores, choose_devices
from cli.launch.events import LaunchError
from cli.launch.plan import LaunchPlan
from cli.load.live import progress_bar
from cli.load.outcomes import Outcome, Targets, summarize
from cli.load.pictures import parse_size
from cli.load.texts import TextMaker
from cli.load.workload import WorkloadSpec, plan_requests
from cli.model_folder import model_folder


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--address", help="a running cluster")
    parser.add_argument("--setup", action="append", default=[], help="a cluster to start; repeatable")
    parser.add_argument(
        "--model", type=Path, help="model folder (its tokenizer counts tokens); default: the demo"
    )
    parser.add_argument("--requests", type=int, default=32, help="per round")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--warmup", type=int, default=4, help="requests before the first round, not counted")
    parser.add_argument("--rate", type=float, help="requests per second of an open loop")
    parser.add_argument("--concurrency", type=int, default=8, help="requests at a time of a closed loop")
    parser.add_argument("--input-tokens", type=int, default=512, help="of the text")
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--image-share", type=float, default=0.0, help="of requests with pictures, 0 to 1")
    parser.add_argument("--image-size", default="448x448", help="pixels")
    parser.add_argument("--images-per-request", type=int, default=1)
    parser.add_argument("--image-input-tokens", type=int, help="of the text beside pictures")
    parser.add_argument("--ttft-target-ms", type=float, help="goodput counts requests under it")
    parser.add_argument("--tpot-target-ms", type=float, help="goodput counts requests under it")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--cores", help="cores of the clusters, such as 0-3")
    parser.add_argument("--processes", type=int, default=1, help="that send requests")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds per request")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there ('-' prints it)")
    args = parser.parse_args(words)
    if bool(args.address) == bool(args.setup):
        parser.error("name either --address or --setup")
    return args


def make_spec(args: argparse.Namespace, num_requests: int) -> WorkloadSpec:
    return WorkloadSpec(
        num_requests=num_requests,
        input_tokens=args.input_tokens,
        output_tokens=args.output_tokens,
        image_share=args.image_share,
        images_per_request=args.images_per_request,
        image_size=parse_size(args.image_size),
        image_input_tokens=args.image_input_tokens,
        rate=args.rate,
        concurrency=args.concurrency,
    )


def measure(
    args: argparse.Namespace, addresses: dict[str, str], console: Console
) -> dict[str, list[dict[str, Any]]]:
    """Rounds of figures per set-up. In a round every set-up answers the same requests, in turn."""
    texts = TextMaker(model_folder(args.model))
    targets = Targets(args.ttft_target_ms, args.tpot_target_ms)
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in addresses}
    if args.warmup:
        for name, address in addresses.items():
            run_once(
                args, address, texts, console, num_requests=args.warmup, seed=-1, label=f"{name}: warm-up"
            )
    for number in range(args.rounds):
        for name, address in addresses.items():
            label, seed = f"{name}: round {number + 1}/{args.rounds}", args.seed + number
            outcomes = run_once(
                args, address, texts, console, num_requests=args.requests, seed=seed, label=label
            )
            rounds[name].append(summarize(outcomes, targets))
    return rounds


def run_once(
    args: argparse.Namespace,
    address: str,
    texts: TextMaker,
    console: Console,
    *,
    num_requests: int,
    seed: int,
    label: str,
) -> list[Outcome]:
    requests = plan_requests(make_spec(args, num_requests), texts, seed)
    spec = DriveSpec(address, args.concurrency, args.processes, args.timeout)
    with progress_bar(console, label, num_requests) as on_outcome:
        return drive(spec, requests, on_outcome)


def make_plan(args: argparse.Namespace) -> LaunchPlan:
    """What all set-ups have in common."""
    return LaunchPlan(
        cluster="benchmark",
        model=model_folder(args.model),
        devices=choose_devices(args.device),
        cores=choose_cores(args.cores),
        dtype=args.dtype,
        log_level="WARNING",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The whole report. Raises ValueError for bad options, LaunchError if a cluster does not start."""
    console = Console(stderr=True)
    make_spec(args, args.requests)
    setups = [parse_setup(text) for text in args.setup]
    with ExitStack() as stack:
        addresses = {"cluster": args.address} if args.address else {}
        for setup in setups:
            with console.status(f"starting {setup.name}"):
                addresses[setup.name] = stack.enter_context(running(setup, make_plan(args))).address
        rounds = measure(args, addresses, console)
    options = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    command = shlex.join(["python", "-m", "benchmarks.serve", *sys.argv[1:]])
    return build_report(rounds, command=command, options=options)


def main() -> int:
    args = parse_args()
    try:
        report = run(args)
    except (ValueError, LaunchError, RuntimeError) as error:
        print(f"benchmarks.serve: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    text = json.dumps(report, indent=2)
    if args.json is None or str(args.json) != "-":
        Console(width=None if sys.stdout.isatty() else 200).print(build_table(report))
    if args.json is not None:
        print(text) if str(args.json) == "-" else args.json.write_text(text + "\n")
    has_answers = all(
        each["failed"] < each["requests"] for rounds in report["setups"].values() for each in rounds["rounds"]
    )
    return 0 if has_answers else 1


if __name__ == "__main__":
    sys.exit(main())
