"""How much of a prefill's KV traffic hides behind its compute.

    python -m benchmarks.hidden --model M [--transports shm,grpc] [--tokens 2048] [--rounds 7] [--json FILE]

As p1d1 on one host: this process prefills on one core with a stage server's own engine thread and
hand-over, a second one on another core receives. Two ways of the same prefill alternate:

    hidden   each layer's KV leaves as it is written, as it does in service
    alone    all KV leaves at once after the first token was sampled, its lease granted before

"computed" is the moment at which the first token was sampled: an instance that decodes itself would go on
from there. "ready" is the moment at which the receiver's engine thread is handed the blocks and the token.
Exposed is computed to ready in the first way, transfer is computed to ready in the second: what the
hand-over costs when nothing hides. "one block" is the second way with a prompt of one block: what any
hand-over costs after its prefill, however little it carries. Medians of the rounds give two shares:

    hidden time       1 - exposed / transfer
    hidden traffic    1 - (exposed - one block) / (transfer - one block), of what carrying KV adds to that

"from the last layer" is from the moment at which the last layer's KV was written to ready, hidden: it
contains the rest of that layer, the head and the sampling. Both prefill times are from the engine's taking
the prompt to computed, so that what the copies take from the compute shows as well.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import statistics
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import uvloop
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.transfer.prefilling import Moments, Prefilling
from benchmarks.transfer.receiving import Reachable, ReceivingEnd, receive
from benchmarks.transfer.shape import CLUSTER
from cli.model_folder import model_folder
from core.sampling import SamplingParams
from core.sequence import SequenceSpec
from kv_transfer.allocator import keep_freed_memory
from kv_transfer.blocks import blocks_for
from kv_transfer.layout import PoolLayout
from kv_transfer.pool import Pool, kv_layout
from kv_transfer.segment import reap_segments
from stage_servers.engine.loader import load_model
from stage_servers.engine.model import Model

BLOCK_TOKENS = 16
TARGET_SHARE = 0.9
ROUND_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians of one transport; milliseconds."""

    transport: str
    size_bytes: int
    num_rounds: int
    prefill_ms: float  # while KV leaves
    prefill_alone_ms: float
    from_last_layer_ms: float
    exposed_ms: float
    transfer_ms: float
    one_block_ms: float

    @property
    def hidden_time_share(self) -> float:
        return 1 - self.exposed_ms / self.transfer_ms

    @property
    def hidden_traffic_share(self) -> float:
        """1 at most: an exposed time below that of one block is chance."""
        added_ms = max(0.0, self.exposed_ms - self.one_block_ms)
        return 1 - added_ms / (self.transfer_ms - self.one_block_ms)


async def measure(
    end: Prefilling, pipe: Connection, size_bytes: int, num_tokens: int, rounds: int
) -> Measured:
    """A first round warms up: it opens channels, maps pages and compiles what is compiled once."""
    hidden, alone, small = [], [], []
    for number in range(rounds + 1):
        first, second = (_spec(f"{end.transport}-{way}", number, num_tokens) for way in ("hidden", "alone"))
        async with asyncio.timeout(ROUND_TIMEOUT_S):
            hidden.append(await end.hidden(first, pipe))
            alone.append(await end.alone(second, pipe))
            small.append(await end.alone(_spec(f"{end.transport}-small", number, BLOCK_TOKENS), pipe))
    return summarize(end.transport, size_bytes, hidden[1:], alone[1:], small[1:])


def summarize(
    transport: str,
    size_bytes: int,
    hidden: Sequence[Moments],
    alone: Sequence[Moments],
    small: Sequence[Moments],
) -> Measured:
    return Measured(
        transport=transport,
        size_bytes=size_bytes,
        num_rounds=len(hidden),
        prefill_ms=_median_ms(each.prefill_s for each in hidden),
        prefill_alone_ms=_median_ms(each.prefill_s for each in alone),
        from_last_layer_ms=_median_ms(each.from_last_layer_s for each in hidden),
        exposed_ms=_median_ms(each.exposed_s for each in hidden),
        transfer_ms=_median_ms(each.exposed_s for each in alone),
        one_block_ms=_median_ms(each.exposed_s for each in small),
    )


def _median_ms(values_s: Iterable[float]) -> float:
    return statistics.median(values_s) * 1e3


def _spec(name: str, number: int, num_tokens: int) -> SequenceSpec:
    draw = random.Random(number)
    prompt = tuple(draw.randrange(256) for _ in range(num_tokens))
    return SequenceSpec(f"{name}-{number}", 0, prompt, SamplingParams(max_tokens=2))


def _layout(model: Model) -> PoolLayout:
    return kv_layout(
        model.fingerprint,
        model.dtype,
        num_layers=model.num_layers,
        num_heads=model.num_kv_heads,
        head_dim=model.head_dim,
        block_tokens=BLOCK_TOKENS,
    )


@asynccontextmanager
async def receiving(end: ReceivingEnd) -> AsyncIterator[tuple[Reachable, Connection]]:
    """A second process that takes transfers in; ends with the block."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=receive, args=(theirs, end))
    process.start()
    theirs.close()
    try:
        yield await asyncio.to_thread(ours.recv), ours
    finally:
        ours.send(None)
        await asyncio.to_thread(process.join)


async def run(model: Model, transports: Sequence[str], num_tokens: int, rounds: int) -> list[Measured]:
    """On this process's first core; the other end is on its last one."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:1])
    torch.set_num_threads(1)
    reap_segments(CLUSTER)
    keep_freed_memory()
    layout, num_blocks = _layout(model), 2 * blocks_for(num_tokens + 1, BLOCK_TOKENS)
    size_bytes = num_tokens * layout.num_planes * layout.token_bytes
    results = []
    async with receiving(ReceivingEnd(layout, num_blocks, cores=tuple(cores[-1:]))) as (there, pipe):
        for transport in transports:
            end = Prefilling(model, transport, there.plain, Pool(layout, num_blocks))
            try:
                results.append(await measure(end, pipe, size_bytes, num_tokens, rounds))
            finally:
                await end.close()
    os.sched_setaffinity(0, cores)
    return results


def build_table(results: Sequence[Measured]) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("transport")
    headers = (
        "MiB",
        "prefill ms",
        "alone",
        "from the last layer ms",
        "exposed ms",
        "transfer ms",
        "one block ms",
        "hidden: time",
        "traffic",
    )
    for header in headers:
        table.add_column(header, justify="right")
    for each in results:
        table.add_row(
            each.transport,
            f"{each.size_bytes / 2**20:.1f}",
            f"{each.prefill_ms:.0f}",
            f"{each.prefill_alone_ms:.0f}",
            f"{each.from_last_layer_ms:.2f}",
            f"{each.exposed_ms:.2f}",
            f"{each.transfer_ms:.2f}",
            f"{each.one_block_ms:.2f}",
            f"{each.hidden_time_share:.1%}",
            f"{each.hidden_traffic_share:.1%}",
        )
    return table


def build_report(results: Sequence[Measured], args: argparse.Namespace) -> dict[str, Any]:
    return {
        "tokens": args.tokens,
        "num_cores": os.cpu_count(),
        "torch": torch.__version__,
        "to_reach": TARGET_SHARE,
        "results": [asdict(each) | _shares(each) for each in results],
    }


def _shares(measured: Measured) -> dict[str, float]:
    return {
        "hidden_time_share": measured.hidden_time_share,
        "hidden_traffic_share": measured.hidden_traffic_share,
    }


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="folder; default: the demo model")
    parser.add_argument("--transports", default="shm,grpc", help="comma-separated")
    parser.add_argument("--tokens", type=int, default=2048, help="of the prompt")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    model = load_model(model_folder(args.model))
    results = uvloop.run(run(model, args.transports.split(","), args.tokens, args.rounds))
    Console(width=150).print(build_table(results))
    if args.json is not None:
        args.json.write_text(json.dumps(build_report(results, args), indent=2) + "\n")


if __name__ == "__main__":
    main()
