"""What the doors bear: token streams over gRPC and HTTP, what they add, idle streams, admission.

    python -m benchmarks.front [--json FILE] [--only grpc --only http ...]

The coordinator has one core to itself; played instances (benchmarks/doors/instances.py) and one client
process share the others, and so do the workers of the HTTP door by itself ("front"). An instance's step gives
one token to each of its streams. Rates rise until the coordinator, or the front, cannot follow: then tokens
of a stream that is behind share a message.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.doors import client, openings
from benchmarks.doors.client import StreamSpec
from benchmarks.doors.figures import added_ms, admission_figures, stream_figures
from benchmarks.doors.openings import AdmitSpec, IdleSpec
from benchmarks.doors.pinning import split_cores
from benchmarks.doors.rig import Front, Rig, bare_server, front_of, rig
from benchmarks.load.report import describe_machine
from cli.load.texts import TextMaker
from cli.model_folder import model_folder

PARTS = ("bare", "grpc", "http", "added", "idle", "admission", "front")
# A rate counts as one token per message while no more than this share of its tokens shared one.
_MOST_PER_MESSAGE = 1.05
_SETTLE_S = 1.0


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.front",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", type=Path, help="model folder (of which only the tokenizer works)")
    parser.add_argument("--only", action="append", choices=PARTS, help="what to measure; repeatable")
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--instances", type=int, default=16)
    parser.add_argument(
        "--rates", default="4000,6000,8000,9000,10000,11000,12000", help="tokens/s that are offered, rising"
    )
    parser.add_argument(
        "--token-rate", type=int, default=26_000, help="tokens/s, several to a message; by HTTP half of it"
    )
    parser.add_argument("--front-rates", default="1000,2000,3000,4000,5000", help="as --rates, by the front")
    parser.add_argument("--workers", type=int, default=1, help="processes of the front")
    parser.add_argument("--window", type=float, default=5.0, help="seconds measured of each rate")
    parser.add_argument("--idle-streams", type=int, default=2000)
    parser.add_argument("--requests", type=int, default=2000, help="of admission")
    parser.add_argument("--request-rates", default="300,450", help="requests/s of admission, rising")
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    return parser.parse_args(words)


class Measurements:
    """Of one run, on one set of processes."""

    def __init__(self, args: argparse.Namespace, running: Rig) -> None:
        self._args = args
        self._rig = running
        self._num_runs = 0

    def streams(self, door: str, rate: float, front: Front | None = None) -> dict[str, Any]:
        """So many tokens a second offered to all streams together; through the front, if there is one."""
        args, server, pids = self._args, self._rig.coordinator, () if front is None else front.pids
        self._num_runs += 1
        request_ids = tuple(client.names(f"run{self._num_runs}", args.streams))
        port = server.port if door == "grpc" else server.http_port if front is None else front.http_port
        spec = StreamSpec(door, port, server.pid, request_ids, 1.0, args.window, 3500, pids)
        before_s, cpu_s = time.monotonic(), self._rig.pace(args.streams / rate)[0].cpu_s
        window = self._rig.run_client(client.run, spec)
        times, took_s = self._rig.pace(None), time.monotonic() - before_s
        time.sleep(_SETTLE_S)  # until what the client left behind is cancelled
        return {
            "offered_per_s": rate,
            **stream_figures(window),
            "instances_cpu_share": (times[0].cpu_s - cpu_s) / took_s,
            "added_ms": added_ms(window, request_ids, times),
        }

    def bare(self, port: int, pid: int) -> dict[str, Any]:
        """The same client and streams on a server that is grpc.aio only."""
        names = tuple(client.names("bare", self._args.streams))
        spec = StreamSpec("grpc", port, pid, names, 1.0, self._args.window, 3500)
        return stream_figures(self._rig.run_client(client.run, spec))

    def rising(self, door: str) -> list[dict[str, Any]]:
        return [self.streams(door, float(rate)) for rate in self._args.rates.split(",")]

    def in_front(self) -> list[dict[str, Any]]:
        """The HTTP door by itself."""
        with front_of(self._rig.coordinator, self._args.workers, self._rig.client_cores) as front:
            return [self.streams("http", float(rate), front) for rate in self._args.front_rates.split(",")]

    def idle(self) -> dict[str, Any]:
        server = self._rig.coordinator
        spec = IdleSpec(server.port, server.pid, self._args.idle_streams)
        added_bytes = self._rig.run_client(openings.idle, spec)
        time.sleep(_SETTLE_S)
        return {"streams": self._args.idle_streams, "added_mib": added_bytes / 2**20}

    def admission(self, model: Path) -> list[dict[str, Any]]:
        """At each rate, requests that differ from their first words on."""
        args, rng, texts = self._args, random.Random(0), TextMaker(model)
        found = []
        for rate in map(float, args.request_rates.split(",")):
            prompts = tuple(texts.make(args.prompt_tokens, rng) for _ in range(args.requests))
            spec = AdmitSpec(self._rig.coordinator.port, self._rig.coordinator.pid, prompts, rate)
            admitted = self._rig.run_client(openings.admit, spec)
            found.append({"offered_per_s": rate, **admission_figures(admitted)})
        return found


def best_single(rising: list[dict[str, Any]]) -> dict[str, Any]:
    """The rate with most messages among those whose tokens came one by one; the lowest where none did."""
    single = [each for each in rising if each["tokens_per_message"] <= _MOST_PER_MESSAGE]
    return max(single or rising[:1], key=lambda each: each["messages_per_s"])


def measure(args: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Every part that is wanted. Raises ValueError, RuntimeError."""
    model, cores = model_folder(args.model), split_cores()
    wanted = args.only or list(PARTS)
    result: dict[str, Any] = {}
    with rig(model, args.instances, cores) as running:
        run = Measurements(args, running)

        def take(name: str, how: Callable[[], Any]) -> None:
            if name in wanted:
                with console.status(name):
                    result[name] = how()

        def take_bare() -> dict[str, Any]:
            with bare_server(cores[0]) as server:
                return run.bare(server.port, server.pid)

        take("idle", run.idle)
        take("bare", take_bare)
        take("grpc", lambda: run.rising("grpc"))
        take("http", lambda: run.rising("http"))
        if "grpc" in wanted:
            result["grpc_tokens"] = run.streams("grpc", args.token_rate)
        if "http" in wanted:
            result["http_tokens"] = run.streams("http", args.token_rate / 2)
        if "added" in wanted:
            half = best_single(result["grpc"])["messages_per_s"] / 2 if "grpc" in result else 3000.0
            result["added"] = run.streams("grpc", half)
        take("admission", lambda: run.admission(model))
        take("front", run.in_front)
    return result


def build_table(result: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    for name in (
        "what",
        "offered/s",
        "messages/s",
        "tokens/s",
        "tokens per message",
        "added p50, p99 ms",
        "CPU",
        "client's",
        "instances'",
        "front's",
    ):
        table.add_column(name, justify="left" if name == "what" else "right")
    rows = [("bare grpc.aio", result[name]) for name in ("bare",) if name in result]
    rows += [(door, each) for door in ("grpc", "http", "front") for each in result.get(door, [])]
    rows += [(name, result[name]) for name in ("grpc_tokens", "http_tokens", "added") if name in result]
    for name, each in rows:
        table.add_row(name, *_cells(each))
    return table


def _cells(each: dict[str, Any]) -> tuple[str, ...]:
    added = each.get("added_ms", {})
    return (
        f"{each['offered_per_s']:.0f}" if "offered_per_s" in each else "",
        f"{each['messages_per_s']:.0f}",
        f"{each['tokens_per_s']:.0f}",
        f"{each['tokens_per_message']:.2f} (most {each['most_tokens_per_message']})",
        f"{added['p50']:.1f}, {added['p99']:.1f}" if added else "",
        f"{each['server_cpu_share']:.0%}",
        f"{each['client_cpu_share']:.0%}",
        f"{each['instances_cpu_share']:.0%}" if "instances_cpu_share" in each else "",
        f"{each['front_cpu_share']:.0%}" if each["front_cpu_share"] else "",
    )


def verdicts(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What was measured, and what is to be reached."""
    found = []
    for door, least in (("grpc", 6000), ("http", 3000)):
        if door in result:
            best = best_single(result[door])["messages_per_s"]
            found.append((f"{door}: messages/s with one token each", f"{best:.0f}", f"{least}"))
        if f"{door}_tokens" in result:
            rate = result[f"{door}_tokens"]["tokens_per_s"]
            found.append(
                (
                    f"{door}: tokens/s, up to 8 in a message",
                    f"{rate:.0f}",
                    "25000" if door == "grpc" else "12500",
                )
            )
    if "front" in result:
        best = best_single(result["front"])
        front_us = best["front_cpu_share"] / best["messages_per_s"] * 1e6
        found.append(
            (
                f"front: messages/s with one token each ({front_us:.0f} us of its processes each)",
                f"{best['messages_per_s']:.0f}",
                "",
            )
        )
    if "grpc" in result and "bare" in result:
        share = best_single(result["grpc"])["messages_per_s"] / result["bare"]["messages_per_s"]
        found.append(("share of bare grpc.aio", f"{share:.0%}", "35%"))
    if "added" in result:
        found.append(
            ("added per token at half of that, p50", f"{result['added']['added_ms']['p50']:.1f} ms", "3 ms")
        )
    if "idle" in result:
        idle = result["idle"]
        found.append((f"{idle['streams']} idle streams", f"{idle['added_mib']:.0f} MiB", "300 MiB"))
    for each in result.get("admission", ()):
        p50_ms, num_tokens = each["accepted_ms"]["p50"], each["prompt_tokens_mean"]
        name = f"admitted of {each['offered_per_s']:.0f}/s, {num_tokens:.0f} tokens (p50 {p50_ms:.0f} ms)"
        found.append((name, f"{each['requests_per_s']:.0f}", "300"))
    return found


def main() -> int:
    args, console = parse_args(), Console(stderr=True)
    try:
        result = measure(args, console)
    except (ValueError, RuntimeError) as error:
        print(f"benchmarks.front: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    out = Console(width=None if sys.stdout.isatty() else 140)
    out.print(build_table(result))
    reached = Table("what", "measured", "to reach", box=box.SIMPLE, pad_edge=False)
    for row in verdicts(result):
        reached.add_row(*row)
    out.print(reached)
    if args.json is not None:
        report = {
            "machine": describe_machine(),
            "options": {k: str(v) for k, v in vars(args).items()},
            **result,
        }
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
