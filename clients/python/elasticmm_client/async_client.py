"""The client for asyncio."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Unpack, cast

import grpc
from grpc import aio

from elasticmm.v1 import inference_pb2 as pb
from elasticmm.v1 import inference_pb2_grpc as rpc
from elasticmm_client.admin import ask_to_migrate_async, fetch_status_async
from elasticmm_client.async_stream import AsyncStream, AsyncStreamCall
from elasticmm_client.channel import CHANNEL_OPTIONS, UNARY_TIMEOUT_S
from elasticmm_client.errors import error_from_call
from elasticmm_client.messages import ImageBytes, Messages, parse_messages, pictures_of
from elasticmm_client.migration import Migration
from elasticmm_client.model import Model, model_from_proto
from elasticmm_client.request import GenerateOptions, build_request
from elasticmm_client.status import ClusterStatus
from elasticmm_client.uploads import UploadCache, upload_requests


class AsyncClient:
    """Talks to one cluster from one event loop.

    address: HOST:PORT of the coordinator. token: the cluster token, needed by
    `status` and `migrate` only. Create it inside the running loop.
    """

    def __init__(self, address: str, *, token: str | None = None) -> None:
        self.address = address
        self._token = token
        self._channel = aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._inference = rpc.InferenceStub(self._channel)
        self._media_channel: aio.Channel | None = None
        self._model: Model | None = None
        self._uploads = UploadCache()

    def generate(self, messages: Messages = (), **options: Unpack[GenerateOptions]) -> AsyncStream:
        """The answer's stream of events; see Client.generate.

        Nothing is sent before the stream is first used, and every error comes
        from there.
        """
        return AsyncStream(lambda has_lost_uploads: self._start(messages, options, has_lost_uploads))

    async def model(self) -> Model:
        """What is served, and its limits; asked once."""
        if self._model is None:
            try:
                reply = await self._inference.GetModel(pb.GetModelRequest(), timeout=UNARY_TIMEOUT_S)
            except grpc.RpcError as error:
                raise error_from_call(error) from error
            self._model = model_from_proto(reply)
        return self._model

    async def status(self) -> ClusterStatus:
        """Instances and load. Raises AccessDenied without the cluster token."""
        return await fetch_status_async(self._channel, self._token)

    async def migrate(self, request_id: str, to_instance: str | None = None) -> Migration:
        """As Client.migrate."""
        return await ask_to_migrate_async(self._channel, self._token, request_id, to_instance)

    async def close(self) -> None:
        """Ends every call of this client."""
        await self._channel.close()
        if self._media_channel is not None:
            await self._media_channel.close()

    async def _start(
        self, messages: Messages, options: GenerateOptions, has_lost_uploads: bool
    ) -> AsyncStreamCall:
        parsed = await asyncio.to_thread(parse_messages, messages)
        tenant = options.get("tenant") or ""
        if has_lost_uploads:
            self._uploads.forget(pictures_of(parsed), tenant)
        request = build_request(parsed, options, await self._upload(pictures_of(parsed), tenant))
        call = self._inference.Generate(request, timeout=options.get("timeout_s"))
        return cast(AsyncStreamCall, call)

    async def _upload(self, pictures: list[ImageBytes], tenant: str) -> dict[bytes, bytes]:
        """Digest by bytes of what the gateway keeps; empty where there is no gateway."""
        if not pictures or not (await self.model()).media_endpoint:
            return {}
        ttl_s = (await self.model()).limits.media_ttl_s
        missing = self._uploads.missing(pictures, tenant, time.monotonic(), ttl_s)
        await asyncio.gather(*(self._upload_one(picture, tenant) for picture in missing))
        return self._uploads.use(pictures, tenant, time.monotonic())

    async def _upload_one(self, picture: ImageBytes, tenant: str) -> None:
        if self._media_channel is None:
            endpoint = (await self.model()).media_endpoint
            self._media_channel = aio.insecure_channel(endpoint, options=CHANNEL_OPTIONS)
        stub = rpc.MediaStub(self._media_channel)
        try:
            await stub.Upload(upload_requests(picture.data, tenant), timeout=UNARY_TIMEOUT_S)
        except grpc.RpcError as error:
            raise error_from_call(error, field=picture.field) from error

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
