"""The gateway's two services: uploads by clients, the store for those with the cluster token."""

# ruff: noqa: ARG002  (gRPC dictates the signatures)

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc

from coordinator.access.guard import Guard
from coordinator.access.principal import Right
from coordinator.calls import ImageSource
from coordinator.errors import InvalidFieldError
from coordinator.media.intake import Intake, of_file
from coordinator.media.resolver import Resolver
from coordinator.media.store import MediaStore, StoredItem
from coordinator.tenants.settings import DEFAULT_TENANT, check_tenant_name
from core.ids import host_id
from elasticmm.v1 import inference_pb2, inference_pb2_grpc
from elasticmm.v1 import media_store_pb2 as pb
from elasticmm.v1 import media_store_pb2_grpc as pb_grpc

_MAX_PIECE_BYTES = 1 << 20
_PIECE_TIMEOUT_S = 30.0


class MediaServicer(inference_pb2_grpc.MediaServicer):
    def __init__(self, intake: Intake, guard: Guard) -> None:
        self._intake = intake
        self._guard = guard

    async def Upload(
        self, requests: AsyncIterator[inference_pb2.UploadRequest], context: grpc.aio.ServicerContext
    ) -> inference_pb2.UploadResponse:
        caller = self._guard.authenticate(context.invocation_metadata() or (), Right.INFER, context.peer())
        pieces = _upload_pieces(requests)
        first = await anext(pieces, None)
        tenant = self._guard.tenant_of(caller, _named_tenant(first))
        item = await self._intake.take(_data_of(first, pieces), "data", tenant)
        return inference_pb2.UploadResponse(
            digest=item.digest,
            size_bytes=item.size_bytes,
            width=item.header.width,
            height=item.header.height,
            media_type=item.header.media_type,
        )


class MediaStoreServicer(pb_grpc.MediaStoreServicer):
    def __init__(self, resolver: Resolver, store: MediaStore, endpoint: str) -> None:
        self._resolver = resolver
        self._store = store
        self._endpoint = endpoint

    async def Resolve(
        self, request: pb.ResolveRequest, context: grpc.aio.ServicerContext
    ) -> pb.ResolveResponse:
        tenant = request.tenant or DEFAULT_TENANT
        item = await self._resolver.resolve(request.request_id, tenant, _to_source(request))
        return pb.ResolveResponse(item=self._from_item(item))

    async def Pull(  # type: ignore[override]
        self, request: pb.PullRequest, context: grpc.aio.ServicerContext
    ) -> None:
        async for piece in of_file(self._store.find(request.digest).path):
            await context.write(pb.PullResponse(data=piece))

    async def Release(
        self, request: pb.ReleaseRequest, context: grpc.aio.ServicerContext
    ) -> pb.ReleaseResponse:
        self._store.release(request.request_id)
        return pb.ReleaseResponse()

    def _from_item(self, item: StoredItem) -> pb.MediaItem:
        return pb.MediaItem(
            digest=item.digest,
            size_bytes=item.size_bytes,
            width=item.header.width,
            height=item.header.height,
            media_type=item.header.media_type,
            endpoint=self._endpoint,
            segment=str(item.path),
            host_id=host_id(),
        )


async def _upload_pieces(
    requests: AsyncIterator[inference_pb2.UploadRequest],
) -> AsyncIterator[inference_pb2.UploadRequest]:
    """Raises InvalidFieldError, also for an upload that does not go on: it holds room in the store."""
    pieces = aiter(requests)
    while True:
        try:
            request = await asyncio.wait_for(anext(pieces, None), _PIECE_TIMEOUT_S)
        except TimeoutError as error:
            raise InvalidFieldError("data", f"nothing came for {_PIECE_TIMEOUT_S:g} s") from error
        if request is None:
            return
        if len(request.data) > _MAX_PIECE_BYTES:
            raise InvalidFieldError("data", f"piece of {len(request.data)} bytes, limit {_MAX_PIECE_BYTES}")
        yield request


def _named_tenant(first: inference_pb2.UploadRequest | None) -> str:
    """Raises InvalidFieldError."""
    tenant = "" if first is None else first.tenant
    check_tenant_name(tenant)
    return tenant


async def _data_of(
    first: inference_pb2.UploadRequest | None, others: AsyncIterator[inference_pb2.UploadRequest]
) -> AsyncIterator[bytes]:
    if first is not None:
        yield first.data
    async for request in others:
        yield request.data


def _to_source(request: pb.ResolveRequest) -> ImageSource:
    kind = request.WhichOneof("source")
    return ImageSource(
        digest=request.digest if kind == "digest" else None,
        data=request.data if kind == "data" else None,
        url=request.url if kind == "url" else None,
    )
