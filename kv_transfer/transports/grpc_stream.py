"""The gRPC stream: always works, two copies and the wire."""

from __future__ import annotations

import asyncio

import grpc

from elasticmm.v1 import transfer_pb2
from kv_transfer.channels import Channels, call_error
from kv_transfer.errors import TransferError
from kv_transfer.leases import Lease
from kv_transfer.offers import OpenOffer
from kv_transfer.pool import Pool
from kv_transfer.source import gather
from kv_transfer.transports.acceptor import TransportInfo
from kv_transfer.transports.backlog import Batch
from kv_transfer.transports.base import PeerAddress, Transfer, Writer

CHUNK_BYTES = 256 << 10  # most data of one message, of one plane or several; larger ones were slower
REASON_TIMEOUT_S = 2.0


class GrpcTransport:
    """Any peer. The stream's own flow control is the back-pressure."""

    name = "grpc"

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    def can_reach(self, peer: PeerAddress) -> bool:
        return bool(peer.endpoint)

    async def open_writer(self, transfer: Transfer) -> Writer:
        return GrpcWriter(self._channels, transfer)

    def forget(self, instance_id: str) -> None:
        self._channels.forget(instance_id)

    async def close(self) -> None:
        """The channels belong to the sender."""


class GrpcAcceptor:
    """Takes Write calls; the bytes pass through this process."""

    name = "grpc"
    is_direct = False

    def refusal(self, offer: OpenOffer, pool: Pool) -> str:
        del offer, pool
        return ""

    async def grant_info(self, lease: Lease, pool: Pool) -> TransportInfo:
        del lease, pool
        return {}

    def lease_ended(self, lease: Lease) -> None:
        """Nothing is kept per lease."""

    async def close(self) -> None:
        """The server is not ours."""


class GrpcWriter:
    """One Write call, fed by a task on the sender's loop."""

    def __init__(self, channels: Channels, transfer: Transfer) -> None:
        self._call = channels.stub(transfer.peer).Write(metadata=channels.metadata)
        self._channels = channels
        self._transfer = transfer
        self._grant = transfer.grant
        self._source = transfer.source
        self._end = transfer.source.end(transfer.heads)
        self._backlog = transfer.backlog
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._is_last = False
        self._size_bytes = 0
        self._task = self._loop.create_task(self._run())

    def wake(self) -> None:
        self._loop.call_soon_threadsafe(self._woken.set)

    async def drain(self) -> int:
        self._is_last = True
        self._woken.set()
        try:
            return await asyncio.shield(self._task)
        except asyncio.CancelledError:
            if self._task.cancelled():  # by `stop`, not this caller
                stopped = TransferError("ENDED", "the transfer was stopped while it was written")
                raise self._transfer.error or stopped from None
            raise

    async def stop(self) -> None:
        self._call.cancel()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> int:
        try:
            return await self._write_all()
        except Exception as error:
            self._call.cancel()
            cause = await self._cause(error) if isinstance(error, grpc.RpcError) else error
            self._transfer.fail(cause)
            raise cause from error

    async def _cause(self, error: grpc.RpcError) -> Exception:
        """Where a message found the call ended, gRPC hides the receiver's reason: asks for it."""
        try:
            if error.code() is grpc.StatusCode.INTERNAL:
                beat = transfer_pb2.WriteRequest(lease_id=self._grant.lease_id)
                metadata = self._channels.metadata
                await self._channels.stub(self._transfer.peer).Write(
                    iter((beat,)), metadata=metadata, timeout=REASON_TIMEOUT_S
                )
                return TransferError("UNAVAILABLE", "writing failed: the stream broke off")
        except grpc.RpcError as reason:
            error = reason
        return call_error("writing failed", error)

    async def _write_all(self) -> int:
        while True:
            self._woken.clear()
            while (batch := self._backlog.take(CHUNK_BYTES)) is not None:
                await self._write(await self._message(batch))
            if self._is_last and not self._backlog.has_work:
                break
            await self._woken.wait()
        await self._call.done_writing()
        received = (await self._call).received_bytes
        if received != self._size_bytes:
            raise TransferError("LOST_BYTES", f"{self._size_bytes} bytes were sent, {received} arrived")
        return self._size_bytes

    async def _write(self, message: transfer_pb2.WriteRequest) -> None:
        try:
            await self._call.write(message)
        except asyncio.InvalidStateError:
            await self._call  # the receiver ended the call early: raises its status
            raise
        self._size_bytes += len(message.data)

    async def _message(self, batch: Batch) -> transfer_pb2.WriteRequest:
        if self._source.is_on_device:
            data = await asyncio.to_thread(self._read, batch)
        else:
            data = self._read(batch)
        return transfer_pb2.WriteRequest(
            lease_id=self._grant.lease_id,
            plane=batch.planes.start,
            num_planes=len(batch.planes),
            first_token=batch.first_token,
            data=data,
        )

    def _read(self, batch: Batch) -> bytes:
        """The moved heads of all its tokens, gathered from their blocks."""
        if batch.fence is not None:
            batch.fence.synchronize()
        return gather(self._source, self._end, batch.source, batch.planes, batch.tokens).tobytes()
