"""The Transfer service: converts, calls the receiver, converts back."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc

from core.access import has_token, why_refused
from elasticmm.v1 import transfer_pb2, transfer_pb2_grpc
from kv_transfer.in_place.offer import offer_from
from kv_transfer.offers import OpenOffer
from kv_transfer.receiver import TransferReceiver
from kv_transfer.statuses import KNOWN_ERRORS, status_of
from kv_transfer.wire import (
    arrived_to,
    commit_from,
    kind_from,
    layout_from,
    layout_to,
    pull_from,
    pushed_to,
)

MAX_OPEN_WAIT_S = 600.0  # where the caller sets no deadline


class _Refused(Exception):
    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class TransferServicer(transfer_pb2_grpc.TransferServicer):
    """Checks the cluster token itself; `token` None leaves that to an interceptor."""

    def __init__(self, receiver: TransferReceiver, token: str | None) -> None:
        self._receiver = receiver
        self._token = token

    async def Open(
        self, request: transfer_pb2.OpenRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> transfer_pb2.OpenResponse:
        await self._check_token(context)
        try:
            with _statuses():
                offer = _offer_from(request)
                async with asyncio.timeout(context.time_remaining() or MAX_OPEN_WAIT_S):
                    granted = await self._receiver.open(offer)
        except _Refused as refused:
            await context.abort(refused.code, str(refused))
        lease = granted.lease
        return transfer_pb2.OpenResponse(
            lease_id=lease.lease_id,
            transport=lease.transport,
            block_ids=lease.block_ids,
            transport_info=json.dumps(dict(granted.info)).encode(),
            layout=layout_to(self._receiver.pools[lease.kind].layout),
            expires_in_ms=round(self._receiver.leases.lease_s * 1000),
            wants_checksums=self._receiver.wants_checksums,
        )

    async def Write(
        self,
        request_iterator: AsyncIterator[transfer_pb2.WriteRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> transfer_pb2.WriteResponse:
        await self._check_token(context)
        received_bytes = 0
        lease_ids: set[int] = set()
        try:
            with _statuses():
                async for request in request_iterator:
                    planes = range(request.plane, request.plane + (request.num_planes or 1))
                    self._receiver.write(request.lease_id, planes, request.first_token, request.data)
                    if request.data:  # else a heartbeat, whose call may break off
                        lease_ids.add(request.lease_id)
                    received_bytes += len(request.data)
        except _Refused as refused:
            self._receiver.lost_stream(lease_ids)
            await context.abort(refused.code, str(refused))
        except BaseException:
            self._receiver.lost_stream(lease_ids)
            raise
        return transfer_pb2.WriteResponse(received_bytes=received_bytes)

    async def Commit(
        self, request: transfer_pb2.CommitRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> transfer_pb2.CommitResponse:
        await self._check_token(context)
        try:
            with _statuses():
                arrived = await asyncio.shield(self._receiver.commit(commit_from(request)))
        except _Refused as refused:
            await context.abort(refused.code, str(refused))
        return arrived_to(arrived)

    async def Abort(
        self, request: transfer_pb2.AbortRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> transfer_pb2.AbortResponse:
        await self._check_token(context)
        if request.lease_id:
            self._receiver.abort(request.lease_id, request.reason)
            return transfer_pb2.AbortResponse()
        try:
            with _statuses():
                item = (request.request_id, request.attempt), kind_from(request.kind), request.item_index
        except _Refused as refused:
            await context.abort(refused.code, str(refused))
        self._receiver.abort_unanswered(item, request.sender_instance_id, request.reason)
        return transfer_pb2.AbortResponse()

    async def PullPrefix(
        self, request: transfer_pb2.PullPrefixRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> transfer_pb2.PullPrefixResponse:
        await self._check_token(context)
        try:
            with _statuses():
                wanted = pull_from(request)
                async with asyncio.timeout(context.time_remaining() or MAX_OPEN_WAIT_S):
                    pushed = await self._receiver.push_prefix(wanted)
        except _Refused as refused:
            await context.abort(refused.code, str(refused))
        return pushed_to(pushed)

    async def OfferEmbedding(
        self, request: transfer_pb2.OfferEmbeddingRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> transfer_pb2.OfferEmbeddingResponse:
        await self._check_token(context)
        try:
            with _statuses():
                async with asyncio.timeout(context.time_remaining() or MAX_OPEN_WAIT_S):
                    is_taken = await self._receiver.in_place.take(offer_from(request))
        except _Refused as refused:
            await context.abort(refused.code, str(refused))
        return transfer_pb2.OfferEmbeddingResponse(is_taken=is_taken)

    async def _check_token(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        metadata = context.invocation_metadata() or ()
        if self._token is not None and not has_token(metadata, self._token):
            lack = f"this service needs the cluster token: {why_refused(metadata)}"
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, lack)


def add_transfer_service(server: grpc.aio.Server, receiver: TransferReceiver, token: str | None) -> None:
    """`token` None: an interceptor of the server checks it."""
    transfer_pb2_grpc.add_TransferServicer_to_server(TransferServicer(receiver, token), server)


@contextlib.contextmanager
def _statuses() -> Iterator[None]:
    """Turns the receiver's exceptions into refusals with a gRPC status."""
    try:
        yield
    except KNOWN_ERRORS as error:
        message = str(error) or "the deadline passed before the request was known here and blocks were free"
        raise _Refused(status_of(error), message) from error


def _offer_from(request: transfer_pb2.OpenRequest) -> OpenOffer:
    """Raises ValueError naming the field."""
    if not request.request_id:
        raise ValueError("request_id: is missing")
    return OpenOffer(
        key=(request.request_id, request.attempt),
        item_index=request.item_index,
        num_tokens=request.num_tokens,
        layout=layout_from(request.layout),
        receiver_epoch=request.receiver_epoch,
        sender_instance_id=request.sender_instance_id,
        sender_host_id=request.sender_host_id,
        sender_pid=request.sender_pid,
        transports=tuple(request.transports),
        is_prefix=request.is_prefix,
    )
