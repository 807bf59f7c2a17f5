"""Shared memory: the sender writes straight into the receiver's leased blocks and says so on a socket.

One copy. The thread that copied the last bytes also sends the record that commits them, and the receiver's
loop hands the blocks to its engine. gRPC only grants, renews and aborts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from kv_transfer.commits import Arrived, Promise
from kv_transfer.descriptors import Bytes, Copy, End, copies
from kv_transfer.errors import AttachError, TransferError
from kv_transfer.leases import Lease
from kv_transfer.native.copies import EndCopies
from kv_transfer.offers import OpenOffer
from kv_transfer.pool import Pool
from kv_transfer.runs import BlockTable
from kv_transfer.segment import PREFIX, SHM_DIR, SharedSegment
from kv_transfer.transports.acceptor import TransportInfo
from kv_transfer.transports.backlog import LITTLE_BYTES, Batch
from kv_transfer.transports.base import PeerAddress, Transfer, Writer
from kv_transfer.transports.commit_socket import CommitCall, CommitConnection, CommitListener
from kv_transfer.transports.copier import Copier

logger = logging.getLogger(__name__)

SLICE_BYTES = 16 << 20  # of one transfer before the next has its turn: some 2 ms, so that turns cost little
ANSWER_TIMEOUT_S = 1.0  # for a record on the socket, before the commit is repeated over gRPC
_SOCKET_KIND = "commit"


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
        self._connections: dict[str, CommitConnection] = {}  # instance id

    def can_reach(self, peer: PeerAddress) -> bool:
        return peer.host_id == self._host_id

    async def open_writer(self, transfer: Transfer) -> Writer:
        self._copier.start()
        pool, connection = self._pool(transfer), self._connection(transfer)
        return ShmWriter(self._copier, pool, connection, transfer)

    def forget(self, instance_id: str) -> None:
        self._attached = {key: pool for key, pool in self._attached.items() if key[0] != instance_id}
        connection = self._connections.pop(instance_id, None)
        if connection is not None:
            connection.close()

    async def close(self) -> None:
        await asyncio.to_thread(self._copier.close)
        for instance_id in list(self._connections):
            self.forget(instance_id)
        self._attached.clear()

    def _connection(self, transfer: Transfer) -> CommitConnection | None:
        """None: the peer hears of commits over gRPC only."""
        name = transfer.grant.info.get(_SOCKET_KIND)
        if not isinstance(name, str):
            return None
        path = _socket_path(name)
        instance_id = transfer.peer.instance_id
        connection = self._connections.get(instance_id)
        if connection is not None and connection.is_open and connection.path == path:
            return connection
        if connection is not None:
            connection.close()
            del self._connections[instance_id]
        try:
            connection = CommitConnection(path, lambda: self._lost(instance_id, path))
        except OSError as error:
            logger.warning("%s: %s; commits go over gRPC", path, error.strerror)
            self.forget(instance_id)  # it may be gone, and its end would be heard of on the socket
            return None
        self._connections[instance_id] = connection
        return connection

    def _lost(self, instance_id: str, path: Path) -> None:
        """The peer's process ended: its memory is free once nobody maps it."""
        connection = self._connections.get(instance_id)
        if connection is not None and connection.path == path:
            self.forget(instance_id)

    def _pool(self, transfer: Transfer) -> AttachedPool:
        key = transfer.peer.instance_id, transfer.source.layout.kind.name
        path = transfer.grant.text("segment")
        pool = self._attached.get(key)
        if pool is None or (pool.path, pool.epoch) != (path, transfer.peer.epoch):
            pool = self._attached[key] = _attach(transfer, path)
        return pool


class ShmAcceptor:
    """Says where the pool's segment is, and listens for commits on a socket beside it."""

    name = "shm"
    is_direct = True

    def __init__(self, host_id: str, commit: CommitCall | None) -> None:
        self._host_id = host_id
        self._commit = commit
        self._listener: CommitListener | None = None

    def refusal(self, offer: OpenOffer, pool: Pool) -> str:
        if offer.sender_host_id != self._host_id:
            return "the sender is on another host"
        return "" if pool.segment is not None else "the pool lies in no shared segment"

    async def grant_info(self, lease: Lease, pool: Pool) -> TransportInfo:
        del lease
        assert pool.segment is not None
        self._listen(pool.segment)
        socket = {} if self._listener is None else {_SOCKET_KIND: str(self._listener.path)}
        return {"segment": str(pool.segment.path)} | socket

    def lease_ended(self, lease: Lease) -> None:
        """Nothing is kept per lease."""

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _listen(self, segment: SharedSegment) -> None:
        """At the first grant; where that fails, senders commit over gRPC."""
        commit, self._commit = self._commit, None
        if commit is None:
            return
        path = segment.sibling(_SOCKET_KIND)
        try:
            self._listener = CommitListener(path, commit)
        except OSError as error:
            logger.warning("%s: %s; senders commit over gRPC", path, error)


class ShmWriter:
    """Copies in the copier thread, but the last LITTLE_BYTES where it commits.

    `_lock` guards what threads share. Whoever holds `_slicing` copies, and sends the
    commit after the last slice: so nothing is being copied when that is sent.
    """

    def __init__(
        self,
        copier: Copier,
        pool: AttachedPool,
        connection: CommitConnection | None,
        transfer: Transfer,
    ) -> None:
        self._copier = copier
        self._pool: AttachedPool | None = pool
        self._connection = connection
        layout, heads = transfer.grant.layout, transfer.heads
        self._here = transfer.source.end(heads)
        self._there = End.of(layout, pool.num_blocks, heads)
        self._target = BlockTable(transfer.grant.block_ids, layout.block_tokens)
        self._transfer = transfer
        self._grant = transfer.grant
        self._source = transfer.source
        self._copies: EndCopies | None = None  # for a source on a device
        if not self._source.is_on_device:
            self._copies = EndCopies(self._here, self._source.host_bytes, self._there, pool.memory)
        self._backlog = transfer.backlog
        self._lock = threading.Lock()
        self._slicing = threading.Lock()
        self._is_in_line = False
        self._is_stopped = False
        self._error: Exception | None = None
        self._size_bytes = 0
        self._promise: Promise | None = None  # to be sent after the last slice
        self._is_sent = False
        self._loop = asyncio.get_running_loop()
        self._waiting: list[asyncio.Event] = []  # until this is out of the line

    def wake(self) -> None:
        if not self._is_little_left():  # else there is time until more is pushed, or `commit`
            self._get_in_line()

    async def commit(self, promise: Promise) -> Arrived | None:
        if self._connection is None or not self._connection.is_open:
            return None
        answer = self._connection.expect(promise.lease_id)
        try:
            self._hand_in(promise)
            if not self._is_sent:
                await self._until_idle()
            if self._error is not None:
                raise self._error
            if not self._is_sent:
                return None
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await answer
        except TimeoutError:
            return None
        finally:
            answer.cancel()

    async def drain(self) -> int:
        if not self._is_sent:  # else the copier may have it in line still, without work
            self._get_in_line()
            await self._until_idle()
        if self._error is not None:
            raise self._error
        self._let_go()
        return self._size_bytes

    async def stop(self) -> None:
        self._is_stopped = True
        await self._until_idle()
        self._let_go()

    def _let_go(self) -> None:
        self._copies = None
        self._pool = None  # an error may hold this writer for long, and it the memory of a peer that is gone

    def run_slice(self) -> bool:
        """In the copier thread."""
        with self._slicing:
            self._slice()
        return self._stay_in_line()

    def _hand_in(self, promise: Promise) -> None:
        """Copies and sends here what is not worth a thread's turn, else leaves that to the copier."""
        with self._lock:
            self._promise = promise
        if self._is_little_left() and self._slicing.acquire(blocking=False):
            try:
                self._slice()
                while self._backlog.has_work and not self._is_stopped:
                    self._slice()
            finally:
                self._slicing.release()
        else:
            self._get_in_line()

    def _is_little_left(self) -> bool:
        """Reading device memory waits, whatever its size: that is for the copier."""
        waiting_bytes = self._backlog.waiting_bytes
        return waiting_bytes == 0 or (waiting_bytes <= LITTLE_BYTES and not self._source.is_on_device)

    def _get_in_line(self) -> None:
        with self._lock:
            if self._is_in_line or self._is_stopped:
                return
            self._is_in_line = True
        self._copier.submit(self)

    def _slice(self) -> None:
        try:
            batch = None if self._is_stopped else self._backlog.take(SLICE_BYTES)
            if batch is not None:
                self._copy(batch)
            self._send_after_last()
        except Exception as error:
            self._error = error
            self._is_stopped = True
            self._transfer.fail(error)

    def _copy(self, batch: Batch) -> None:
        if self._grant.deadline.is_over:
            raise TransferError("LEASE_OVER", "the lease ran out before all was written")
        pool = self._pool
        assert pool is not None, "it was stopped"
        if batch.fence is not None:
            batch.fence.synchronize()
        source = batch.source.runs(batch.first_token, batch.num_tokens)
        target = self._target.runs(batch.first_token, batch.num_tokens)
        moves = copies(self._here, source, self._there, target)
        if self._copies is not None:
            self._size_bytes += self._copies.run(batch.planes, moves)
        else:
            self._copy_off_device(pool, batch.planes, moves)

    def _copy_off_device(self, pool: AttachedPool, planes: range, moves: Iterator[Copy]) -> None:
        for move in moves:
            data = self._source.read(self._here, planes, move.source)
            np.copyto(self._there.view(pool.memory, planes, move.target), data)
            self._size_bytes += data.nbytes

    def _send_after_last(self) -> None:
        promise, connection = self._promise, self._connection
        if (
            promise is None
            or connection is None
            or self._is_stopped
            or self._is_sent
            or self._backlog.has_work
        ):
            return
        self._is_sent = connection.send(promise.record(self._size_bytes))
        self._promise = None

    def _stay_in_line(self) -> bool:
        with self._lock:
            has_work = self._backlog.has_work or self._promise is not None
            if has_work and not self._is_stopped:
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


def _socket_path(name: str) -> Path:
    """Raises AttachError for anything that lies not among the segments."""
    path = Path(name)
    if path.parent != SHM_DIR or not path.name.startswith(PREFIX):
        raise AttachError(f"{path}: not a socket's path")
    return path
