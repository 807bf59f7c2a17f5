"""The receiving process: a pool, a transfer service, and a thread that is woken as the engine's is."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

import grpc
import uvloop

from benchmarks.transfer.shape import CLUSTER, TOKEN
from core.ids import host_id, new_epoch
from kv_transfer.allocator import keep_freed_memory
from kv_transfer.channels import SERVER_OPTIONS
from kv_transfer.layout import PayloadKind, PoolLayout
from kv_transfer.leases import Key
from kv_transfer.pool import Pool
from kv_transfer.receiver import TransferReceiver
from kv_transfer.segment import SegmentOwner
from kv_transfer.sender import PeerAddress
from kv_transfer.servicer import add_transfer_service
from kv_transfer.tls import TlsFiles, add_port


@dataclass(frozen=True, slots=True)
class ReceivingEnd:
    """What the receiving process is to be."""

    layout: PoolLayout
    num_blocks: int
    checksums: bool = False
    tls: TlsFiles | None = None  # for a port beside the one that speaks plain text
    cores: tuple[int, ...] | None = None  # None: all


@dataclass(frozen=True, slots=True)
class Reachable:
    """Where the receiving process is."""

    plain: PeerAddress
    encrypted: PeerAddress  # as `plain` for an end without a certificate
    segment: str  # path of its KV pool


@dataclass(frozen=True, slots=True)
class Readiness:
    """What the receiving process saw since it was asked last."""

    ready_ns: list[int]  # CLOCK_MONOTONIC, when the thread was handed each transfer
    cpu_s: float  # of the process, since its start


class _Thread:
    """Takes calls from a queue as stage_servers.engine_thread does between steps; it has no steps to run."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def post(self, call: Callable[[], object]) -> None:
        self._calls.put(call)

    def stop(self) -> None:
        self._calls.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


class _Host:
    """Knows every request and gives the blocks back at once."""

    def __init__(self, pool: Pool, thread: _Thread) -> None:
        self._pool = pool
        self._thread = thread
        self.ready_ns: list[int] = []

    async def expect(self, key: Key, kind: PayloadKind, item_index: int | None, num_tokens: int) -> None:
        del key, kind, item_index, num_tokens

    def on_kv(self, key: Key, block_ids: list[int], num_tokens: int, outputs: tuple[int, ...]) -> None:
        del key, num_tokens, outputs
        self._thread.post(lambda: self._ready(block_ids))

    def on_embedding(self, key: Key, item_index: int, block_ids: list[int], num_tokens: int) -> None:
        raise NotImplementedError

    def _ready(self, block_ids: list[int]) -> None:
        now_ns = time.monotonic_ns()
        self._pool.blocks.release(block_ids)
        self.ready_ns.append(now_ns)  # whoever hears of it finds the blocks free


def receive(pipe: Connection, end: ReceivingEnd) -> None:
    """Says where it is and answers every message with a Readiness, until it gets None or the pipe breaks."""
    if end.cores is not None:
        os.sched_setaffinity(0, end.cores)
    uvloop.run(_serve(pipe, end))


async def _serve(pipe: Connection, end: ReceivingEnd) -> None:
    keep_freed_memory()
    epoch = new_epoch()
    pool = Pool(end.layout, end.num_blocks, owner=SegmentOwner(CLUSTER, "receiver", epoch))
    thread = _Thread()
    host = _Host(pool, thread)
    receiver = TransferReceiver(
        {PayloadKind.KV: pool}, host, epoch=epoch, host_id=host_id(), checksums=end.checksums
    )
    await receiver.start()
    server = grpc.aio.server(options=SERVER_OPTIONS)
    add_transfer_service(server, receiver, TOKEN)
    ways = (None,) if end.tls is None else (None, end.tls)
    ports = [add_port(server, "127.0.0.1:0", tls) for tls in ways]
    await server.start()
    assert pool.segment is not None
    addresses = [PeerAddress("receiver", f"127.0.0.1:{port}", host_id(), epoch) for port in ports]
    pipe.send(Reachable(addresses[0], addresses[-1], str(pool.segment.path)))
    await asyncio.to_thread(_answer, pipe, host)
    await server.stop(None)
    await receiver.close()
    thread.stop()
    pool.close()


def _answer(pipe: Connection, host: _Host) -> None:
    try:
        while pipe.recv() is not None:
            ready_ns, host.ready_ns = host.ready_ns, []
            pipe.send(Readiness(ready_ns, time.process_time()))
    except EOFError:
        pass  # the sender is gone
