"""The coordinator's side of the gateway: resolve and release, errors named after the client's fields."""

from __future__ import annotations

import asyncio
import logging
from typing import cast

import grpc

from coordinator.calls import ImageSource
from coordinator.errors import (
    InternalFailureError,
    InvalidFieldError,
    NotFoundError,
    OverloadedError,
    ServiceError,
    UnavailableError,
)
from coordinator.stage_messages import MediaItem
from coordinator.wire.stages import to_media_item
from coordinator.wire.status import quota_of, violation_of
from core.access import token_metadata
from core.tls import Dialer, TlsFiles
from elasticmm.v1 import media_store_pb2 as pb
from elasticmm.v1 import media_store_pb2_grpc as pb_grpc

log = logging.getLogger(__name__)

_RETRY_AFTER_S = 1.0
_RELEASE_TIMEOUT_S = 5.0
_CODES = grpc.StatusCode


class GatewayClient:
    """A MediaKeeper over gRPC; `connect` is called with every gateway that comes up."""

    def __init__(
        self, cluster_token: str, message_bytes: int, resolve_timeout_s: float, tls: TlsFiles | None = None
    ) -> None:
        self._dialer = Dialer(tls)
        self._metadata = token_metadata(cluster_token)
        self._options = (
            ("grpc.max_send_message_length", message_bytes),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
        )
        self._resolve_timeout_s = resolve_timeout_s
        self._channel: grpc.aio.Channel | None = None
        self._endpoint = ""
        self._is_up = False
        self._releases: set[asyncio.Task[None]] = set()

    def connect(self, endpoint: str) -> None:
        self._is_up = True
        if endpoint != self._endpoint:
            self._endpoint = endpoint
            self._channel = self._dialer.open(endpoint, self._options)

    def disconnect(self) -> None:
        self._is_up = False

    async def close(self) -> None:
        if self._releases:
            await asyncio.wait(self._releases, timeout=_RELEASE_TIMEOUT_S)
        if self._channel is not None:
            await self._channel.close()

    async def resolve(self, request_id: str, tenant: str, source: ImageSource, field: str) -> MediaItem:
        stub = self._stub()
        request = _to_request(request_id, tenant, source)
        try:
            response = await stub.Resolve(request, metadata=self._metadata, timeout=self._resolve_timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _translated(error, field) from error
        return to_media_item(response.item)

    def release(self, request_id: str) -> None:
        if self._is_up:
            task = asyncio.create_task(self._release(request_id))
            self._releases.add(task)
            task.add_done_callback(self._releases.discard)

    async def _release(self, request_id: str) -> None:
        try:
            request = pb.ReleaseRequest(request_id=request_id)
            await self._stub().Release(request, metadata=self._metadata, timeout=_RELEASE_TIMEOUT_S)
        except (grpc.aio.AioRpcError, ServiceError) as error:
            facts = {"request_id": request_id}
            log.warning("media of request %s: not released, %s", request_id, error, extra=facts)

    def _stub(self) -> pb_grpc.MediaStoreAsyncStub:
        if not self._is_up or self._channel is None:
            raise UnavailableError("the media gateway is starting again", _RETRY_AFTER_S)
        return cast("pb_grpc.MediaStoreAsyncStub", pb_grpc.MediaStoreStub(self._channel))


def _to_request(request_id: str, tenant: str, source: ImageSource) -> pb.ResolveRequest:
    request = pb.ResolveRequest(request_id=request_id, tenant=tenant)
    if source.digest is not None:
        request.digest = source.digest
    elif source.data is not None:
        request.data = source.data
    else:
        request.url = source.url or ""
    return request


def _translated(error: grpc.aio.AioRpcError, field: str) -> ServiceError:
    violation = violation_of(error)
    details = error.details() or ""
    if violation is not None:
        name, reason = violation
        kind = NotFoundError if error.code() is _CODES.NOT_FOUND else InvalidFieldError
        return kind(f"{field}.{name}", reason)
    if error.code() is _CODES.RESOURCE_EXHAUSTED:
        return OverloadedError(details, _RETRY_AFTER_S, quota_of(error))
    if error.code() in (_CODES.UNAVAILABLE, _CODES.DEADLINE_EXCEEDED, _CODES.CANCELLED):
        return UnavailableError(f"the media gateway did not answer ({details})", _RETRY_AFTER_S)
    return InternalFailureError(f"media gateway: {details}")
