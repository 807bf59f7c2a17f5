"""Bandwidth of KV transfers between two processes on one GPU, beside a copy in one process.

    python -m benchmarks.cuda_transfer [--device cuda:0] [--max-mib 8192] [--repeats 7] [--pushes 32]
                                      [--json FILE]

One process owns the receiving pool, this one sends over cuda_ipc, a layer with each push (or
more, as steps in graphs do). For each payload, transfer and a device-to-device copy of as many
bytes alternate; medians are compared.
"copied" is from the first push to the last byte in the other process's pool, "write"
also waits for the acknowledged commit. Where CUDA opens no handle, what the driver
said is printed and recorded instead.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import grpc
import torch
import uvloop

from core.ids import host_id, new_epoch
from kv_transfer.channels import SERVER_OPTIONS
from kv_transfer.errors import TransferError
from kv_transfer.layout import PayloadKind
from kv_transfer.leases import Key
from kv_transfer.pool import Pool, kv_layout
from kv_transfer.receiver import TransferReceiver
from kv_transfer.sender import Outgoing, PeerAddress, Sender
from kv_transfer.servicer import add_transfer_service
from kv_transfer.transports import cuda_driver

TOKEN = FINGERPRINT = "benchmark"
NUM_LAYERS = 32
# 32 layers, 8 KV heads of 128 in bfloat16, 16 tokens: 2 MiB per block.
LAYOUT = kv_layout(
    FINGERPRINT, torch.bfloat16, num_layers=NUM_LAYERS, num_heads=8, head_dim=128, block_tokens=16
)
BLOCK_BYTES = LAYOUT.pool_bytes(1)
TARGET_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians of one payload."""

    num_blocks: int
    size_bytes: int
    copied_s: float
    write_s: float
    device_copy_s: float

    @property
    def share_of_device_copy(self) -> float:
        return self.device_copy_s / self.copied_s

    @property
    def rate(self) -> float:
        """GiB/s."""
        return self.size_bytes / self.copied_s / 2**30


class _Host:
    """Knows every request and gives the blocks back at once; tells what arrived where that is asked."""

    def __init__(self, pool: Pool, pipe: Connection) -> None:
        self._pool = pool
        self._pipe = pipe

    async def expect(self, key: Key, kind: PayloadKind, item_index: int | None, num_tokens: int) -> None:
        del key, kind, item_index, num_tokens

    def on_kv(self, key: Key, block_ids: list[int], num_tokens: int, outputs: tuple[int, ...]) -> None:
        del num_tokens, outputs
        if key[0] == "checked":
            self._pipe.send(_checksum(self._pool, block_ids))
        self._pool.blocks.release(block_ids)

    def on_embedding(self, key: Key, item_index: int, block_ids: list[int], num_tokens: int) -> None:
        raise NotImplementedError


def _checksum(pool: Pool, blocks: list[int]) -> list[int]:
    """One number per plane that depends on every word and its place."""
    numbers = []
    for plane in pool.tensor.view(torch.int16):
        words = plane[blocks].to(torch.int64).flatten()
        places = torch.arange(1, len(words) + 1, device=words.device)
        numbers.append(int((words * places).sum()))
    return numbers


def _receive(pipe: Connection, num_blocks: int, device: str) -> None:
    uvloop.run(_serve(pipe, num_blocks, device))


async def _serve(pipe: Connection, num_blocks: int, device: str) -> None:
    epoch = new_epoch()
    pool = Pool(LAYOUT, num_blocks, device=device)
    receiver = TransferReceiver({PayloadKind.KV: pool}, _Host(pool, pipe), epoch=epoch, host_id=host_id())
    await receiver.start()
    server = grpc.aio.server(options=SERVER_OPTIONS)
    add_transfer_service(server, receiver, TOKEN)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    pipe.send(PeerAddress("receiver", f"127.0.0.1:{port}", host_id(), epoch))
    await asyncio.to_thread(pipe.poll, None)  # until the sender says, or is gone
    await server.stop(None)
    await receiver.close()
    pool.close()


class _Pair:
    """A sender, its source pool and the peer."""

    def __init__(self, peer: PeerAddress, source: Pool, num_pushes: int) -> None:
        self._peer = peer
        self._num_pushes = num_pushes
        self._source = source
        self._sender = Sender(
            model_fingerprint=FINGERPRINT,
            instance_id="sender",
            host_id=host_id(),
            token=TOKEN,
            transports=["cuda_ipc"],
        )
        self._num_sent = 0

    async def send(self, num_blocks: int, request_id: str = "timed") -> tuple[float, float]:
        """Seconds from the first push until all is copied, and until the commit is acknowledged."""
        self._num_sent += 1
        blocks, num_tokens = list(range(num_blocks)), num_blocks * LAYOUT.block_tokens
        outgoing = await self._sender.open(
            self._peer, (request_id, self._num_sent), PayloadKind.KV, 0, num_tokens, self._source
        )
        torch.cuda.synchronize()
        start_s = time.perf_counter()
        count = LAYOUT.num_planes // self._num_pushes
        for first in range(0, LAYOUT.num_planes, count):
            outgoing.push(0, num_tokens, range(first, first + count), blocks)
        copied_s = await _until_copied(outgoing) - start_s
        await outgoing.commit(num_tokens)
        return copied_s, time.perf_counter() - start_s

    async def close(self) -> None:
        await self._sender.close()


async def _until_copied(outgoing: Outgoing) -> float:
    """When the writer has nothing left; that the commit asks it again costs nothing."""
    await outgoing._writer.drain()
    return time.perf_counter()


def _device_copy_s(source: Pool, target: torch.Tensor, num_blocks: int) -> float:
    """A plain copy of as many bytes on the same card in this process."""
    count = num_blocks * BLOCK_BYTES // 2
    one, other = target.flatten()[:count], source.tensor.flatten()[:count]
    torch.cuda.synchronize()
    start_s = time.perf_counter()
    one.copy_(other)
    torch.cuda.synchronize()
    return time.perf_counter() - start_s


async def _measure(
    pair: _Pair, source: Pool, target: torch.Tensor, num_blocks: int, repeats: int
) -> Measured:
    copied, write, copies = [], [], []
    for is_warm in [False, *[True] * repeats]:
        copied_s, write_s = await pair.send(num_blocks)
        copy_s = _device_copy_s(source, target, num_blocks)
        if is_warm:
            copied.append(copied_s)
            write.append(write_s)
            copies.append(copy_s)
    medians = (statistics.median(each) for each in (copied, write, copies))
    return Measured(num_blocks, num_blocks * BLOCK_BYTES, *medians)


async def _check(pair: _Pair, source: Pool, pipe: Connection, num_blocks: int) -> None:
    await pair.send(num_blocks, "checked")
    if await asyncio.to_thread(pipe.recv) != _checksum(source, list(range(num_blocks))):
        raise SystemExit("the bytes that arrived are not those that were sent")


def _payloads(max_blocks: int) -> Iterator[int]:
    count = 1
    while count < max_blocks:
        yield count
        count *= 4
    yield max_blocks


async def run(device: str, max_blocks: int, repeats: int, num_pushes: int) -> list[Measured]:
    """Raises TransferError with the driver's words where the pool cannot be shared."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_receive, args=(theirs, max_blocks, device))
    process.start()
    theirs.close()  # so that a receiver that dies is seen
    try:
        peer = await asyncio.to_thread(ours.recv)
        source = Pool(LAYOUT, max_blocks, device=device)
        source.tensor.view(torch.int16).random_(-1000, 1000)
        target = torch.empty_like(source.tensor)
        pair = _Pair(peer, source, num_pushes)
        results = []
        try:
            await _check(pair, source, ours, max_blocks)
            for num_blocks in _payloads(max_blocks):
                results.append(await _measure(pair, source, target, num_blocks, repeats))
                _print_row(results[-1])
        finally:
            await pair.close()
        return results
    finally:
        with contextlib.suppress(OSError):  # it is gone already
            ours.send("stop")
        process.join()


def _print_row(m: Measured) -> None:
    print(
        f"{m.num_blocks:>7}{m.size_bytes / 2**20:>10.0f}{m.copied_s * 1e3:>11.3f}{m.write_s * 1e3:>10.3f}"
        f"{m.device_copy_s * 1e3:>10.3f}{m.rate:>9.1f}{m.share_of_device_copy:>8.0%}"
    )


def measure(device: str, max_blocks: int, repeats: int, num_pushes: int) -> dict[str, object]:
    """The record to publish: figures, or why there are none."""
    print(f"{'blocks':>7}{'MiB':>10}{'copied ms':>11}{'write ms':>10}{'D2D ms':>10}{'GiB/s':>9}{'share':>8}")
    record: dict[str, object] = {
        "device": torch.cuda.get_device_name(device),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "target_share": TARGET_SHARE,
        "pushes": num_pushes,
    }
    try:
        results = uvloop.run(run(device, max_blocks, repeats, num_pushes))
    except TransferError as error:
        print(f"cuda_ipc cannot be had on this card: {error}")
        return record | {"error": str(error)}
    share = max(each.share_of_device_copy for each in results)
    print(f"best share of a device-to-device copy: {share:.0%} (to reach: {TARGET_SHARE:.0%})")
    rows = [asdict(m) | {"share_of_device_copy": m.share_of_device_copy} for m in results]
    return record | {"best_share": share, "results": rows}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--max-mib", type=float, default=8192.0, help="largest payload; held three times")
    parser.add_argument("--repeats", type=int, default=7, help="transfers per payload")
    pushes = [1 << power for power in range(NUM_LAYERS.bit_length())]
    parser.add_argument("--pushes", type=int, choices=pushes, default=NUM_LAYERS, help="of all layers")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    if reason := cuda_driver.refusal():
        print(f"{reason}: nothing to measure")
        return
    max_blocks = max(1, round(options.max_mib * 2**20 / BLOCK_BYTES))
    record = measure(options.device, max_blocks, options.repeats, options.pushes)
    if options.json is not None:
        options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
