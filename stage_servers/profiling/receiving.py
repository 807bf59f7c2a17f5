"""The process that transfers are measured into: two pools and a transfer service, as an instance has."""

from __future__ import annotations

import asyncio
import contextlib
import os
from multiprocessing.connection import Connection
from typing import NamedTuple

import grpc
import uvloop

from core.ids import host_id, new_epoch
from kv_transfer.allocator import keep_freed_memory
from kv_transfer.channels import MESSAGE_OPTIONS
from kv_transfer.layout import PayloadKind, PoolLayout
from kv_transfer.leases import Key
from kv_transfer.pool import Pool
from kv_transfer.receiver import TransferReceiver
from kv_transfer.segment import SegmentOwner
from kv_transfer.sender import PeerAddress
from kv_transfer.servicer import add_transfer_service


class PoolShape(NamedTuple):
    layout: PoolLayout
    num_blocks: int


class Settings(NamedTuple):
    """What the process is told at its start."""

    cluster: str
    token: str
    device: str
    shapes: tuple[PoolShape, ...]
    cores: tuple[int, ...]  # that it runs on


class _Host:
    """Knows every request and frees what has arrived at once."""

    def __init__(self, pools: dict[PayloadKind, Pool]) -> None:
        self._pools = pools

    async def expect(self, key: Key, kind: PayloadKind, item_index: int | None, num_tokens: int) -> None:
        del key, kind, item_index, num_tokens

    def on_kv(self, key: Key, block_ids: list[int], num_tokens: int, outputs: tuple[int, ...]) -> None:
        del key, num_tokens, outputs
        self._pools[PayloadKind.KV].blocks.release(block_ids)

    def on_embedding(self, key: Key, item_index: int, block_ids: list[int], num_tokens: int) -> None:
        del key, item_index, num_tokens
        self._pools[PayloadKind.EMBEDDING].blocks.release(block_ids)


def receive(pipe: Connection, settings: Settings) -> None:
    """Sends its PeerAddress, and serves until the pipe says something or breaks."""
    os.sched_setaffinity(0, settings.cores)
    uvloop.run(_serve(pipe, settings))


async def _serve(pipe: Connection, settings: Settings) -> None:
    keep_freed_memory()
    epoch = new_epoch()
    owner = SegmentOwner(settings.cluster, "receiver", epoch)
    pools = {
        shape.layout.kind: Pool(shape.layout, shape.num_blocks, device=settings.device, owner=owner)
        for shape in settings.shapes
    }
    receiver = TransferReceiver(pools, _Host(pools), epoch=epoch, host_id=host_id(), instance_id="receiver")
    await receiver.start()
    server = grpc.aio.server(options=MESSAGE_OPTIONS)
    add_transfer_service(server, receiver, settings.token)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        pipe.send(PeerAddress("receiver", f"127.0.0.1:{port}", host_id(), epoch))
        await asyncio.to_thread(_wait, pipe)
    finally:
        await server.stop(None)
        await receiver.close()
        for pool in pools.values():
            pool.close()


def _wait(pipe: Connection) -> None:
    with contextlib.suppress(EOFError):  # the other end is gone
        pipe.recv()
