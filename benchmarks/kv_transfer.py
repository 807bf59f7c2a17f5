"""Bandwidth and latency of KV transfers between two processes of this host, beside a plain memcpy.

    python -m benchmarks.kv_transfer [--transports NAME,NAME…] [--max-mib 256] [--repeats 7] [--json FILE]

One process owns the receiving pool, this one sends. For each payload, transfer
and memcpy of the same bytes alternate; medians of one run are compared. "write"
is from the first push to the acknowledged commit, "whole" also asks for the lease.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import grpc
import numpy as np
import torch
import uvloop

from core.ids import host_id, new_epoch
from kv_transfer.allocator import keep_freed_memory
from kv_transfer.channels import MESSAGE_OPTIONS
from kv_transfer.layout import PayloadKind
from kv_transfer.leases import Key
from kv_transfer.pool import Pool, kv_layout
from kv_transfer.receiver import TransferReceiver
from kv_transfer.segment import SegmentOwner, SharedSegment, reap_segments
from kv_transfer.sender import PeerAddress, Sender
from kv_transfer.servicer import add_transfer_service

CLUSTER = "benchmark"
TOKEN = "benchmark"
FINGERPRINT = "benchmark"
NUM_LAYERS = 12
# Of the 120m checkpoint: 12 layers, 4 KV heads of 64 in bfloat16, 16 tokens: 192 KiB per block.
LAYOUT = kv_layout(
    FINGERPRINT, torch.bfloat16, num_layers=NUM_LAYERS, num_heads=4, head_dim=64, block_tokens=16
)
BLOCK_BYTES = LAYOUT.pool_bytes(1)
SMALL_BLOCKS = 16  # up to here latency counts, and more repeats are cheap


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians of one payload on one transport; rates in GiB/s."""

    transport: str
    num_blocks: int
    size_bytes: int
    first_s: float  # whole transfer, first touch of the receiver's pages
    whole_s: float
    write_s: float
    memcpy_s: float
    cpu_s_per_gib: float  # of the sending process

    @property
    def write_rate(self) -> float:
        return self.size_bytes / self.write_s / 2**30

    @property
    def memcpy_rate(self) -> float:
        return self.size_bytes / self.memcpy_s / 2**30

    @property
    def share_of_memcpy(self) -> float:
        return self.memcpy_s / self.write_s


class _Host:
    """Knows every request and gives the blocks back at once."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def expect(self, key: Key, kind: PayloadKind, item_index: int | None, num_tokens: int) -> None:
        del key, kind, item_index, num_tokens

    def on_kv(self, key: Key, block_ids: list[int], num_tokens: int, outputs: tuple[int, ...]) -> None:
        del key, num_tokens, outputs
        self._pool.blocks.release(block_ids)

    def on_embedding(self, key: Key, item_index: int, block_ids: list[int], num_tokens: int) -> None:
        del key, item_index, num_tokens
        self._pool.blocks.release(block_ids)


def _receive(pipe: Connection, num_blocks: int) -> None:
    uvloop.run(_serve(pipe, num_blocks))


async def _serve(pipe: Connection, num_blocks: int) -> None:
    keep_freed_memory()
    epoch = new_epoch()
    pool = Pool(LAYOUT, num_blocks, owner=SegmentOwner(CLUSTER, "receiver", epoch))
    receiver = TransferReceiver({PayloadKind.KV: pool}, _Host(pool), epoch=epoch, host_id=host_id())
    await receiver.start()
    server = grpc.aio.server(options=MESSAGE_OPTIONS)
    add_transfer_service(server, receiver, TOKEN)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    assert pool.segment is not None
    peer = PeerAddress("receiver", f"127.0.0.1:{port}", host_id(), epoch)
    pipe.send((peer, str(pool.segment.path)))
    await asyncio.to_thread(pipe.poll, None)  # until the sender says, or is gone
    await server.stop(None)
    await receiver.close()
    pool.close()


class _Pair:
    """A sender, its source pool and the peer."""

    def __init__(self, transport: str, peer: PeerAddress, segment: str, source: Pool) -> None:
        self.transport = transport
        self._peer = peer
        self._source = source
        self._segment = segment
        self._sender = Sender(
            model_fingerprint=FINGERPRINT,
            instance_id="sender",
            host_id=host_id(),
            token=TOKEN,
            transports=[transport],
        )
        self._num_sent = 0

    async def send(self, num_blocks: int) -> tuple[float, float]:
        """Seconds of the whole transfer, and from the first push on."""
        self._num_sent += 1
        num_tokens = num_blocks * LAYOUT.block_tokens
        start_s = time.perf_counter()
        key = f"{self.transport}-{self._num_sent}", 0
        outgoing = await self._sender.open(self._peer, key, PayloadKind.KV, 0, num_tokens, self._source)
        granted_s = time.perf_counter()
        for layer in range(NUM_LAYERS):
            outgoing.push(0, num_tokens, range(2 * layer, 2 * layer + 2), range(num_blocks))
        await outgoing.commit(num_tokens)
        end_s = time.perf_counter()
        return end_s - start_s, end_s - granted_s

    def check(self, num_blocks: int) -> None:
        """What is in the receiver's first blocks is what was sent."""
        segment = SharedSegment.attach(self._segment)
        theirs = segment.tensor(torch.bfloat16, tuple(self._source.tensor.shape))
        if not torch.equal(
            theirs[:, :num_blocks].view(torch.int16), self._source.tensor[:, :num_blocks].view(torch.int16)
        ):
            raise SystemExit(f"{self.transport}: the bytes that arrived are not those that were sent")

    async def close(self) -> None:
        await self._sender.close()


class _Memcpy:
    """Copies as many bytes from the same source into memory of this process, one thread."""

    def __init__(self, source: Pool) -> None:
        self._source = source.tensor.view(torch.uint8).numpy().reshape(-1)
        self._target = np.zeros_like(self._source)
        np.copyto(self._target, self._source)

    def copy_s(self, size_bytes: int) -> float:
        start_s = time.perf_counter()
        np.copyto(self._target[:size_bytes], self._source[:size_bytes])
        return time.perf_counter() - start_s


async def _measure(pair: _Pair, memcpy: _Memcpy, num_blocks: int, repeats: int) -> Measured:
    first_s, _ = await pair.send(num_blocks)
    pair.check(num_blocks)
    whole, write, copies = [], [], []
    cpu_start_s = time.process_time()
    copy_cpu_s = 0.0
    for _ in range(repeats):
        whole_s, write_s = await pair.send(num_blocks)
        whole.append(whole_s)
        write.append(write_s)
        before_s = time.process_time()
        copies.append(memcpy.copy_s(num_blocks * BLOCK_BYTES))
        copy_cpu_s += time.process_time() - before_s
    size_bytes = num_blocks * BLOCK_BYTES
    cpu_s = time.process_time() - cpu_start_s - copy_cpu_s
    return Measured(
        transport=pair.transport,
        num_blocks=num_blocks,
        size_bytes=size_bytes,
        first_s=first_s,
        whole_s=statistics.median(whole),
        write_s=statistics.median(write),
        memcpy_s=statistics.median(copies),
        cpu_s_per_gib=cpu_s / (repeats * size_bytes / 2**30),
    )


def _payloads(max_blocks: int) -> Iterator[int]:
    count = 1
    while count < max_blocks:
        yield count
        count *= 4
    yield max_blocks


async def run(transports: list[str], max_blocks: int, repeats: int) -> list[Measured]:
    reap_segments(CLUSTER)
    keep_freed_memory()
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_receive, args=(theirs, max_blocks))
    process.start()
    try:
        peer, segment = await asyncio.to_thread(ours.recv)
        source = Pool(LAYOUT, max_blocks)
        source.tensor.view(torch.int16).random_(generator=torch.Generator().manual_seed(0))
        memcpy = _Memcpy(source)
        results = []
        for transport in transports:
            pair = _Pair(transport, peer, segment, source)
            for num_blocks in _payloads(max_blocks):
                times = repeats * 8 if num_blocks <= SMALL_BLOCKS else repeats
                results.append(await _measure(pair, memcpy, num_blocks, times))
                _print_row(results[-1])
            await pair.close()
        return results
    finally:
        ours.send("stop")
        process.join()


def _print_row(m: Measured) -> None:
    print(
        f"{m.transport:<11}{m.num_blocks:>7}{m.size_bytes / 2**20:>10.2f}{m.first_s * 1e3:>10.2f}"
        f"{m.whole_s * 1e3:>10.2f}{m.write_s * 1e3:>10.2f}{m.memcpy_s * 1e3:>11.2f}"
        f"{m.write_rate:>9.2f}{m.memcpy_rate:>9.2f}{m.share_of_memcpy:>8.0%}{m.cpu_s_per_gib:>10.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--transports", default="shm,collective,grpc", help="comma-separated")
    parser.add_argument("--max-mib", type=float, default=256.0, help="largest payload")
    parser.add_argument("--repeats", type=int, default=7, help="transfers per payload")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    max_blocks = max(1, round(options.max_mib * 2**20 / BLOCK_BYTES))
    print(
        f"{'':<11}{'blocks':>7}{'MiB':>10}{'first ms':>10}{'whole ms':>10}{'write ms':>10}{'memcpy ms':>11}"
        f"{'GiB/s':>9}{'memcpy':>9}{'share':>8}{'CPU s/GiB':>10}"
    )
    results = uvloop.run(run(options.transports.split(","), max_blocks, options.repeats))
    if options.json is not None:
        rows = [asdict(m) | {"share_of_memcpy": m.share_of_memcpy} for m in results]
        record = {"num_cores": os.cpu_count(), "torch": torch.__version__, "results": rows}
        options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
