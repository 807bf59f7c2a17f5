"""The sender's side: one pair per peer, made when it is needed, made again when it broke."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import NamedTuple

import torch

from kv_transfer.errors import AttachError, TransferError
from kv_transfer.transports.backlog import Batch
from kv_transfer.transports.base import PeerAddress, Transfer, Writer
from kv_transfer.transports.collective.closing import join_all
from kv_transfer.transports.collective.groups import GLOO, NCCL, has_nccl
from kv_transfer.transports.collective.link import Link, dial
from kv_transfer.transports.collective.sending import Outbox, SendingPair
from kv_transfer.transports.collective.staging import SLICE_BYTES

TIMEOUT_S = 10.0


class PairKey(NamedTuple):
    """What a sender has one pair for."""

    peer: PeerAddress
    backend: str
    device: torch.device


class CollectiveTransport:
    """Any peer that has an endpoint. `timeout_s` bounds a payload, an answer and the making of a pair."""

    name = "collective"

    def __init__(self, instance_id: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._instance_id = instance_id
        self._timeout_s = timeout_s
        self._pairs: dict[PairKey, SendingPair] = {}
        self._ended: list[SendingPair] = []  # closed, perhaps not yet over
        self._is_closed = False

    def can_reach(self, peer: PeerAddress) -> bool:
        return bool(peer.endpoint)

    async def open_writer(self, transfer: Transfer) -> Writer:
        if self._is_closed:
            raise AttachError("this end is closed")
        pair = self._pair(transfer)
        try:
            await asyncio.shield(pair.made)
        except TransferError as error:
            raise AttachError(f"{transfer.peer.instance_id}: {error}") from None
        return CollectiveWriter(pair, transfer)

    def forget(self, instance_id: str) -> None:
        self._drop([key for key in self._pairs if key.peer.instance_id == instance_id])

    async def close(self) -> None:
        self._is_closed = True
        self._drop(list(self._pairs))
        await join_all(self._ended)
        self._ended.clear()

    def _pair(self, transfer: Transfer) -> SendingPair:
        key = _key(transfer)
        instance_id = key.peer.instance_id
        earlier = [k for k in self._pairs if k.peer.instance_id == instance_id and k.peer != key.peer]
        self._drop([*earlier, *(k for k in [key] if k in self._pairs and self._pairs[k].is_over)])
        if key not in self._pairs:
            self._pairs[key] = self._make(key, transfer)
        return self._pairs[key]

    def _make(self, key: PairKey, transfer: Transfer) -> SendingPair:
        port = transfer.grant.info.get("port")
        if not isinstance(port, int):
            raise AttachError("the receiver granted collective without port")
        address = key.peer.endpoint.rpartition(":")[0].strip("[]"), port
        token = transfer.grant.text("token")
        hello = {
            "instance_id": self._instance_id,
            "token": token,
            "backend": key.backend,
            "device": str(key.device),
        }

        def make() -> Link:
            return dial(address, hello, key.device, self._timeout_s)

        return SendingPair(make, self._timeout_s)

    def _drop(self, keys: list[PairKey]) -> None:
        self._ended = [pair for pair in self._ended if not pair.is_over]
        for key in keys:
            pair = self._pairs.pop(key)
            pair.close()
            self._ended.append(pair)


class CollectiveWriter:
    """One transfer on its pair; `_lock` guards what the pair's thread and the others share."""

    def __init__(self, pair: SendingPair, transfer: Transfer) -> None:
        self.lease_id = transfer.grant.lease_id
        self._pair = pair
        self._transfer = transfer
        self._lock = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._drained: asyncio.Future[int] | None = None
        self._error: Exception | None = None
        self._is_in_line = False
        self._is_stopped = False
        self._is_asked = False  # whether the receiver was told that this is all
        self._is_reading = False  # the source
        self._has_read = asyncio.Event()
        self._size_bytes = 0
        pair.add(self)

    def wake(self) -> None:
        with self._lock:
            if self._is_in_line or self._is_stopped:
                return
            self._is_in_line = True
        self._pair.submit(self)

    async def drain(self) -> int:
        self._drained = self._loop.create_future()
        if self._is_stopped:
            raise self._error or _stopped(self._transfer)
        self.wake()
        return await self._drained

    async def stop(self) -> None:
        """Slices on their way do not matter: the receiver takes nothing for a lease that ended."""
        self._pair.remove(self)
        with self._lock:
            self._is_stopped = True
            is_reading = self._is_reading
        self._settle(self._error or _stopped(self._transfer))
        if is_reading:
            await self._has_read.wait()

    def run_slice(self, outbox: Outbox) -> bool:
        slot = outbox.free_slot()
        with self._lock:
            self._is_reading = not self._is_stopped
        try:
            batch = self._transfer.backlog.take(SLICE_BYTES) if self._is_reading else None
            if batch is not None:
                self._send(outbox, slot, batch)
        finally:
            self._read()
        return self._stay_in_line(outbox)

    def taken(self, size_bytes: int) -> None:
        if size_bytes != self._size_bytes:
            message = f"{self._size_bytes} bytes were sent, {size_bytes} arrived"
            self.fail(TransferError("LOST_BYTES", message))
            return
        self._pair.remove(self)
        self._settle(size_bytes)

    def fail(self, error: Exception) -> None:
        self._pair.remove(self)
        with self._lock:
            self._is_stopped = True
            self._error = self._error or error
        self._transfer.fail(error)
        self._settle(error)

    def _send(self, outbox: Outbox, slot: int, batch: Batch) -> None:
        """What goes wrong with the source is this transfer's fault, all else the pair's."""
        try:
            if self._transfer.grant.deadline.is_over:
                raise TransferError("LEASE_OVER", "the lease ran out before all was written")
            if batch.fence is not None:
                batch.fence.synchronize()
            data = outbox.gather(slot, self._transfer, batch)
        except Exception as error:
            self.fail(error)
            return
        self._size_bytes += outbox.send(slot, self.lease_id, batch, data)

    def _read(self) -> None:
        with self._lock:
            self._is_reading = False
            is_waited_for = self._is_stopped
        if is_waited_for:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._has_read.set)

    def _stay_in_line(self, outbox: Outbox) -> bool:
        with self._lock:
            if self._is_stopped:
                self._is_in_line = False
                return False
            if self._transfer.backlog.has_work:
                return True
            self._is_in_line = False
            is_last = self._drained is not None and not self._is_asked
            self._is_asked = self._is_asked or is_last
        if is_last:
            outbox.ask(self.lease_id)
        return False

    def _settle(self, outcome: int | Exception) -> None:
        """Any thread: ends the waiting in `drain`."""

        def settle() -> None:
            if self._drained is None or self._drained.done():
                return
            if isinstance(outcome, int):
                self._drained.set_result(outcome)
            else:
                self._drained.set_exception(outcome)
                self._drained.exception()  # whoever waited may have left

        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(settle)


def _stopped(transfer: Transfer) -> Exception:
    return transfer.error or TransferError("ENDED", "the transfer was stopped while it was written")


def _key(transfer: Transfer) -> PairKey:
    """NCCL where both ends are on GPUs, else gloo by way of the host."""
    device = transfer.source.elements.device
    if device.type == "cuda" and transfer.grant.text("backend") == NCCL and has_nccl():
        return PairKey(transfer.peer, NCCL, device)
    return PairKey(transfer.peer, GLOO, torch.device("cpu"))
