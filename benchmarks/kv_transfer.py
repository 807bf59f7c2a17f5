"""Latency and bandwidth of KV transfers between two processes of this host, beside a plain memcpy.

    python -m benchmarks.kv_transfer [--transports NAME,NAME…] [--max-mib 1024] [--repeats 7] [--json FILE]

One process owns the receiving pool, this one sends, over each transport that can be had here; grpc-tls is
the gRPC stream through mutual TLS, where `trustme` is installed. "ready" is from the push of one block, its
lease granted, to a thread of the receiver being handed it (woken as the engine's thread is). "write" is from
the first push to the acknowledged commit, "whole" also asks for the lease.

For each payload transfer and memcpy of the same bytes alternate, and medians of one run are compared. memcpy
is one call of one thread over the whole payload, all pages mapped, into private memory and into the peer's
segment. Where the two differ, the faster counts: it is what a hand-over within one process could do. CPU is
what each process used, user and system, all threads.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import uvloop

from benchmarks.transfer.certificates import can_issue, issue
from benchmarks.transfer.figures import (
    Bandwidth,
    Latency,
    bandwidth_header,
    bandwidth_row,
    latency_header,
    latency_row,
)
from benchmarks.transfer.memcpy import Memcpy
from benchmarks.transfer.pair import Pair
from benchmarks.transfer.receiving import Reachable, Readiness, ReceivingEnd, receive
from benchmarks.transfer.shape import BLOCK_BYTES, CLUSTER, LAYOUT, SMALL_BLOCKS, payloads
from kv_transfer.allocator import keep_freed_memory
from kv_transfer.pool import Pool
from kv_transfer.segment import SHM_DIR, SharedSegment, reap_segments
from kv_transfer.tls import TlsFiles
from kv_transfer.transports.registry import usable

_LATENCY_REPEATS = 300
_WARM_REPEATS = 20
TLS = "grpc-tls"


def found_here() -> list[str]:
    """All that two processes of one host can use between pools in its memory."""
    return [name for name in usable(None) if name != "cuda_ipc"] + ([TLS] if can_issue() else [])


async def _seen(pipe: Connection) -> Readiness:
    pipe.send("seen?")
    seen: Readiness = await asyncio.to_thread(pipe.recv)
    return seen


async def _ready_ns(pipe: Connection, count: int) -> list[int]:
    """Of the last `count` transfers; the thread there may be handed one after its commit was answered."""
    ready_ns: list[int] = []
    while len(ready_ns) < count:
        ready_ns += (await _seen(pipe)).ready_ns
    return ready_ns


async def _settled_cpu_s(pipe: Connection, count: int) -> float:
    """CPU seconds there once the last `count` transfers were handed on: the next takes the first blocks."""
    while True:
        seen = await _seen(pipe)
        count -= len(seen.ready_ns)
        if count <= 0:
            return seen.cpu_s


async def _latency(pair: Pair, pipe: Connection) -> Latency:
    for _ in range(_WARM_REPEATS):
        await pair.send(1, num_pushes=1)
    pair.check(1)
    await _ready_ns(pipe, _WARM_REPEATS)
    sent = [await pair.send(1, num_pushes=1) for _ in range(_LATENCY_REPEATS)]
    ready_ns = await _ready_ns(pipe, _LATENCY_REPEATS)
    ready = [end - each.granted_ns for end, each in zip(ready_ns, sent, strict=True)]
    committed = [each.committed_ns - each.granted_ns for each in sent]
    quantiles_us = [_quantile(values, share) / 1e3 for values in (ready, committed) for share in (0.5, 0.9)]
    return Latency(pair.transport, len(sent), *quantiles_us)


def _quantile(values: Sequence[int], share: float) -> int:
    return sorted(values)[round(share * (len(values) - 1))]


async def _bandwidth(
    pair: Pair, pipe: Connection, memcpy: Memcpy, num_blocks: int, repeats: int
) -> Bandwidth:
    first = await pair.send(num_blocks)
    pair.check(num_blocks)
    size_bytes = num_blocks * BLOCK_BYTES
    sent, private, shared = [], [], []
    cpu_s = 0.0
    receiver_cpu_s = await _settled_cpu_s(pipe, 1)
    for _ in range(repeats):
        before_s = time.process_time()
        sent.append(await pair.send(num_blocks))
        cpu_s += time.process_time() - before_s
        private.append(memcpy.private_s(size_bytes))
        shared.append(memcpy.shared_s(size_bytes))
    receiver_cpu_s = await _settled_cpu_s(pipe, repeats) - receiver_cpu_s
    gib = repeats * size_bytes / 2**30
    return Bandwidth(
        transport=pair.transport,
        num_blocks=num_blocks,
        size_bytes=size_bytes,
        first_s=first.whole_s,
        whole_s=statistics.median(each.whole_s for each in sent),
        write_s=statistics.median(each.write_s for each in sent),
        private_memcpy_s=statistics.median(private),
        shared_memcpy_s=statistics.median(shared),
        sender_cpu_s_per_gib=cpu_s / gib,
        receiver_cpu_s_per_gib=receiver_cpu_s / gib,
    )


async def run(
    transports: list[str], max_blocks: int, repeats: int, *, checksums: bool
) -> tuple[list[Latency], list[Bandwidth]]:
    reap_segments(CLUSTER)
    keep_freed_memory()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    folder = tempfile.TemporaryDirectory(prefix="elasticmm-")
    tls = issue(Path(folder.name)) if TLS in transports else None
    end = ReceivingEnd(LAYOUT, max_blocks, checksums=checksums, tls=tls)
    process = context.Process(target=receive, args=(theirs, end))
    process.start()
    theirs.close()
    try:
        there: Reachable = await asyncio.to_thread(ours.recv)
        segment = SharedSegment.attach(there.segment)
        source = Pool(LAYOUT, max_blocks)
        source.tensor.view(torch.int16).random_(generator=torch.Generator().manual_seed(0))
        pairs = [_pair(transport, there, segment, source, tls) for transport in transports]
        latencies = await _all_latencies(pairs, ours)
        bandwidths = await _all_bandwidths(pairs, ours, Memcpy(source, segment), max_blocks, repeats)
        for pair in pairs:
            await pair.close()
        return latencies, bandwidths
    finally:
        ours.send(None)
        process.join()
        folder.cleanup()


def _pair(name: str, there: Reachable, segment: SharedSegment, source: Pool, tls: TlsFiles | None) -> Pair:
    if name != TLS:
        return Pair(name, there.plain, segment, source)
    return Pair("grpc", there.encrypted, segment, source, tls)


async def _all_latencies(pairs: list[Pair], pipe: Connection) -> list[Latency]:
    print(latency_header())
    found = []
    for pair in pairs:
        found.append(await _latency(pair, pipe))
        print(latency_row(found[-1]))
    return found


async def _all_bandwidths(
    pairs: list[Pair], pipe: Connection, memcpy: Memcpy, max_blocks: int, repeats: int
) -> list[Bandwidth]:
    print(bandwidth_header())
    found = []
    for pair in pairs:
        for num_blocks in payloads(max_blocks):
            times = repeats * 8 if num_blocks <= SMALL_BLOCKS else repeats
            found.append(await _bandwidth(pair, pipe, memcpy, num_blocks, times))
            print(bandwidth_row(found[-1]))
    return found


def _most_blocks(max_mib: float) -> int:
    """As asked for, if shared memory has room for it and as much again."""
    room = os.statvfs(SHM_DIR)
    most_bytes = min(max_mib * 2**20, room.f_bavail * room.f_frsize / 2)
    return max(1, round(most_bytes / BLOCK_BYTES))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--transports", help="comma-separated; default: all that can be had here")
    parser.add_argument("--max-mib", type=float, default=1024.0, help="largest payload")
    parser.add_argument("--repeats", type=int, default=7, help="transfers per payload")
    parser.add_argument("--checksums", action="store_true", help="with a checksum per block")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    latencies, bandwidths = uvloop.run(
        run(
            options.transports.split(",") if options.transports else found_here(),
            _most_blocks(options.max_mib),
            options.repeats,
            checksums=options.checksums,
        )
    )
    if options.json is not None:
        record = {
            "num_cores": os.cpu_count(),
            "torch": torch.__version__,
            "checksums": options.checksums,
            "latency": [asdict(m) for m in latencies],
            "bandwidth": [asdict(m) | {"share_of_memcpy": m.share_of_memcpy} for m in bandwidths],
        }
        options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
