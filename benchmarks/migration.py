"""How long a stream stands still while it moves to another instance, in decode steps of the same run.

    python -m benchmarks.migration --model M [--setup "coupled instances=2 transport=shm"]… [--tokens 1024]
        [--moves 12] [--beside 0] [--json FILE]

One stream with a long prompt is moved back and forth. "stood still" is what the source reports: from the
freeze to the target's confirmation. "pause" is what the client sees: the widest gap between two tokens around
the move, less the one step that any token takes. Steps are the median gap of the same stream away from moves.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.load.setups import Setup, parse_setup, running
from cli.launch.plan import LaunchPlan
from cli.load.texts import TextMaker
from cli.model_folder import model_folder
from elasticmm_client import Client, Migration, Stream

SETUPS = ("coupled instances=2 transport=shm", "coupled instances=2 transport=grpc")
REQUEST_ID = "moving"
EVERY_TOKENS = 24  # between two moves
WARM_UP_MOVES = 2  # the first one in each direction opens channels
TARGET_STEPS = 2.0


@dataclass(frozen=True, slots=True)
class Move:
    """One move, as the client saw it."""

    start_s: float
    end_s: float
    moved: Migration


@dataclass(frozen=True, slots=True)
class Measured:
    """One set-up; milliseconds, medians over moves unless named otherwise."""

    setup: str
    transport: str
    num_moves: int
    size_bytes: int
    step_ms: float
    stood_still_ms: float
    pause_ms: float
    worst_pause_ms: float

    @property
    def pause_steps(self) -> float:
        return self.pause_ms / self.step_ms

    @property
    def stood_still_steps(self) -> float:
        return self.stood_still_ms / self.step_ms


class Listener:
    """Reads a stream in a thread and notes when its tokens came."""

    def __init__(self, stream: Stream) -> None:
        self.arrivals_s: list[float] = []
        self.num_tokens = 0
        self._stream = stream
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def wait_for(self, num_tokens: int) -> None:
        """Raises RuntimeError if the stream ends before."""
        with self._changed:
            self._changed.wait_for(lambda: self.num_tokens >= num_tokens or not self._thread.is_alive(), 120)
        if self.num_tokens < num_tokens:
            raise RuntimeError(f"the stream ended after {self.num_tokens} tokens, or stands still")

    def stop(self) -> None:
        self._stream.cancel()
        self._thread.join()

    def _read(self) -> None:
        try:
            for event in self._stream:
                self._note(len(getattr(event, "token_ids", ())))
        finally:
            with self._changed:
                self._changed.notify_all()

    def _note(self, num_tokens: int) -> None:
        if num_tokens:
            with self._changed:
                self.arrivals_s.append(time.perf_counter())
                self.num_tokens += num_tokens
                self._changed.notify_all()


def calm_step_s(arrivals_s: Sequence[float], moves: Sequence[Move]) -> float:
    """The median gap away from moves."""
    gaps = [
        after - before
        for before, after in pairwise(arrivals_s)
        if not any(before <= move.end_s and move.start_s <= after for move in moves)
    ]
    return statistics.median(gaps)


def widest_gap_s(arrivals_s: Sequence[float], move: Move, step_s: float) -> float:
    """The widest gap that touches the move; the target's first token may come a step after its report."""
    return max(
        after - before
        for before, after in pairwise(arrivals_s)
        if before <= move.end_s + step_s and move.start_s <= after
    )


def summarize(setup: str, arrivals_s: Sequence[float], moves: Sequence[Move]) -> Measured:
    step_s = calm_step_s(arrivals_s, moves)
    counted = moves[WARM_UP_MOVES:]
    pauses = [max(0.0, widest_gap_s(arrivals_s, move, step_s) - step_s) * 1e3 for move in counted]
    return Measured(
        setup=setup,
        transport=counted[0].moved.transport,
        num_moves=len(counted),
        size_bytes=round(statistics.median(move.moved.size_bytes for move in counted)),
        step_ms=step_s * 1e3,
        stood_still_ms=statistics.median(move.moved.pause_ms for move in counted),
        pause_ms=statistics.median(pauses),
        worst_pause_ms=max(pauses),
    )


def measure(setup: Setup, args: argparse.Namespace) -> Measured:
    plan = LaunchPlan(
        cluster="benchmark",
        model=model_folder(args.model),
        cores=tuple(sorted(os.sched_getaffinity(0))),
        dtype=args.dtype,
        log_level="WARNING",
    )
    with running(setup, plan) as endpoint, Client(endpoint.address, token=endpoint.token) as client:
        beside = [Listener(ask(client, args, number + 1)) for number in range(args.beside)]
        for each in beside:
            each.wait_for(1)
        stream = Listener(ask(client, args, 0, request_id=REQUEST_ID))
        try:
            moves = move_often(client, stream, args.moves + WARM_UP_MOVES)
        finally:
            for each in (stream, *beside):
                each.stop()
    return summarize(setup.name, stream.arrivals_s, moves)


def ask(client: Client, args: argparse.Namespace, number: int, request_id: str | None = None) -> Stream:
    text = TextMaker(model_folder(args.model)).make(args.tokens, random.Random(number))
    # The others go on for as long as the moves take.
    num_tokens = (args.moves + WARM_UP_MOVES + 4) * EVERY_TOKENS * (4 if number else 2)
    return client.generate(
        text, request_id=request_id or f"beside-{number}", max_tokens=num_tokens, ignore_eos=True
    )


def move_often(client: Client, stream: Listener, count: int) -> list[Move]:
    moves: list[Move] = []
    for _ in range(count):
        stream.wait_for(stream.num_tokens + EVERY_TOKENS)
        start_s = time.perf_counter()
        moved = client.migrate(REQUEST_ID)
        moves.append(Move(start_s, time.perf_counter(), moved))
    stream.wait_for(stream.num_tokens + EVERY_TOKENS)
    return moves


def build_table(results: Sequence[Measured]) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("set-up")
    for header in (
        "moves",
        "MiB",
        "step ms",
        "stood still ms",
        "in steps",
        "pause ms",
        "in steps",
        "worst ms",
    ):
        table.add_column(header, justify="right")
    for each in results:
        table.add_row(
            each.setup,
            str(each.num_moves),
            f"{each.size_bytes / 2**20:.1f}",
            f"{each.step_ms:.2f}",
            f"{each.stood_still_ms:.2f}",
            f"{each.stood_still_steps:.2f}",
            f"{each.pause_ms:.2f}",
            f"{each.pause_steps:.2f}",
            f"{each.worst_pause_ms:.2f}",
        )
    return table


def build_report(results: Sequence[Measured], args: argparse.Namespace) -> dict[str, Any]:
    rows = [
        asdict(each) | {"pause_steps": each.pause_steps, "stood_still_steps": each.stood_still_steps}
        for each in results
    ]
    return {
        "tokens": args.tokens,
        "beside": args.beside,
        "num_cores": os.cpu_count(),
        "torch": torch.__version__,
        "to_reach_steps": TARGET_STEPS,
        "results": rows,
    }


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="folder; default: the demo model")
    parser.add_argument("--setup", action="append", help="topology and settings; repeatable")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--tokens", type=int, default=1024, help="of the prompt")
    parser.add_argument("--moves", type=int, default=12, help="that count")
    parser.add_argument("--beside", type=int, default=0, help="other streams that decode meanwhile")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    results = [measure(parse_setup(text), args) for text in args.setup or SETUPS]
    Console(width=140).print(build_table(results))
    if args.json is not None:
        args.json.write_text(json.dumps(build_report(results, args), indent=2) + "\n")


if __name__ == "__main__":
    main()
