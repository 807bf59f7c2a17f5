"""Shared memory: the sender writes straight into the receiver's leased blocks, one copy."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import asdict, dataclass

import numpy as np

from kv_transfer.descriptors import Bytes, End, copies
from kv_transfer.errors import AttachError, TransferError
from kv_transfer.leases import Lease
from kv_transfer.offers import OpenOffer
from kv_transfer.pool import Pool
from kv_transfer.runs import BlockTable
from kv_transfer.segment import SharedSegment
from kv_transfer.transports.acceptor import TransportInfo
from kv_transfer.transports.backlog import Batch
from kv_transfer.transports.base import PeerAddress, Transfer, Writer
from kv_transfer.transports.copier import Copier

SLICE_BYTES = 4 << 20  # copied for one transfer before the next has its turn


@dataclass(frozen=True, slots=True)
class AttachedPool:
    """A peer's pool in this process: all its bytes."""

    memory: Bytes
    num_blocks: int
    path: str
    epoch: int


class ShmTransport:
    """Peers on this host whose pools lie in shared segments."""

    name = "shm"

    def __init__(self, host_id: str) -> None:
        self._host_id = host_id
        self._copier = Copier()
        self._attached: dict[tuple[str, str], AttachedPool] = {}  # instance id, kind

    def can_reach(self, peer: PeerAddress) -> bool:
        return peer.host_id == self._host_id

    async def open_writer(self, transfer: Transfer) -> Writer:
        self._copier.start()
        return ShmWriter(self._copier, self._pool(transfer), transfer)

    def forget(self, instance_id: str) -> None:
        self._attached = {key: pool for key, pool in self._attached.items() if key[0] != instance_id}

    async def close(self) -> None:
        await asyncio.to_thread(self._copier.close)
        self._attached.clear()

    def _pool(self, transfer: Transfer) -> AttachedPool:
        key = transfer.peer.instance_id, transfer.source.layout.kind.name
        path = transfer.grant.text("segment")
        pool = self._attached.get(key)
        if pool is None or (pool.path, pool.epoch) != (path, transfer.peer.epoch):
            pool = self._attached[key] = _attach(transfer, path)
        return pool


class ShmAcceptor:
    """Says where the pool's segment is."""

    name = "shm"
    is_direct = True

    def __init__(self, host_id: str) -> None:
        self._host_id = host_id

    def refusal(self, offer: OpenOffer, pool: Pool) -> str:
        if offer.sender_host_id != self._host_id:
            return "the sender is on another host"
        return "" if pool.segment is not None else "the pool lies in no shared segment"

    async def grant_info(self, lease: Lease, pool: Pool) -> TransportInfo:
        del lease
        assert pool.segment is not None
        return {"segment": str(pool.segment.path)}

    def lease_ended(self, lease: Lease) -> None:
        """Nothing is kept per lease."""

    async def close(self) -> None:
        """The pools are not ours."""


class ShmWriter:
    """Copies in the copier thread; `_lock` guards what that thread and the others share."""

    def __init__(self, copier: Copier, pool: AttachedPool, transfer: Transfer) -> None:
        self._copier = copier
        self._pool = pool
        layout, heads = transfer.grant.layout, transfer.heads
        self._here = transfer.source.end(heads)
        self._there = End.of(layout, pool.num_blocks, heads)
        self._target = BlockTable(transfer.grant.block_ids, layout.block_tokens)
        self._transfer = transfer
        self._grant = transfer.grant
        self._source = transfer.source
        self._backlog = transfer.backlog
        self._lock = threading.Lock()
        self._is_in_line = False
        self._is_stopped = False
        self._error: Exception | None = None
        self._size_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._waiting: list[asyncio.Event] = []  # until this is out of the line

    def wake(self) -> None:
        with self._lock:
            if self._is_in_line or self._is_stopped:
                return
            self._is_in_line = True
        self._copier.submit(self)

    async def drain(self) -> int:
        await self._until_idle()
        if self._error is not None:
            raise self._error
        return self._size_bytes

    async def stop(self) -> None:
        self._is_stopped = True
        await self._until_idle()

    def run_slice(self) -> bool:
        """In the copier thread."""
        try:
            batch = None if self._is_stopped else self._backlog.take(SLICE_BYTES)
            if batch is not None:
                self._copy(batch)
        except Exception as error:
            self._error = error
            self._is_stopped = True
            self._transfer.fail(error)
        return self._stay_in_line()

    def _copy(self, batch: Batch) -> None:
        if self._grant.deadline.is_over:
            raise TransferError("LEASE_OVER", "the lease ran out before all was written")
        if batch.fence is not None:
            batch.fence.synchronize()
        source = batch.source.runs(batch.first_token, batch.num_tokens)
        target = self._target.runs(batch.first_token, batch.num_tokens)
        for copy in copies(self._here, source, self._there, target):
            data = self._source.read(self._here, batch.planes, copy.source)
            place = self._there.view(self._pool.memory, batch.planes, copy.target)
            np.copyto(place, data)  # without the GIL
            self._size_bytes += data.nbytes

    def _stay_in_line(self) -> bool:
        with self._lock:
            if self._backlog.has_work and not self._is_stopped:
                return True
            self._is_in_line = False
            waiting, self._waiting = self._waiting, []
        for event in waiting:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(event.set)
        return False

    async def _until_idle(self) -> None:
        event = asyncio.Event()
        with self._lock:
            if not self._is_in_line:
                return
            self._waiting.append(event)
        await event.wait()


def _attach(transfer: Transfer, path: str) -> AttachedPool:
    peer = transfer.peer
    segment = SharedSegment.attach(path)
    labels = segment.record.labels
    if segment.record.epoch != peer.epoch:
        raise AttachError(f"{path}: belongs to another life of {peer.instance_id}")
    layout = transfer.grant.layout
    num_blocks = int(labels.get("num_blocks", 0))
    if labels != asdict(layout) | {"num_blocks": num_blocks}:
        raise AttachError(f"{path}: is laid out otherwise than the grant says")
    return AttachedPool(segment.array(), num_blocks, path, peer.epoch)
