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
from elasticmm_client.channel import UNARY_TIMEOUT_S, open_aio_channel, token_metadata
from elasticmm_client.errors import error_from_call
from elasticmm_client.messages import ImageBytes, Messages, parse_messages, pictures_of
from elasticmm_client.migration import Migration
from elasticmm_client.model import Model, model_from_proto
from elasticmm_client.request import GenerateOptions, build_request, with_request_id
from elasticmm_client.resuming import DEFAULT_KEEP_S, AnswerCalls, Resumption, answer_calls
from elasticmm_client.status import ClusterStatus
from elasticmm_client.tls import Tls
from elasticmm_client.uploads import UploadCache, upload_requests


class AsyncClient:
    """Talks to one cluster from one event loop.

    address: HOST:PORT of the coordinator. token: the cluster token, needed by
    `status` and `migrate` only, unless the API key has the right `admin`. api_key: where the
    cluster has keys; calls that name no tenant are its tenant's. tls: None speaks plain text.
    Create it inside the running loop.
    """

    def __init__(
        self, address: str, *, token: str | None = None, api_key: str | None = None, tls: Tls | None = None
    ) -> None:
        self.address = address
        self._token = token or api_key  # for admin calls
        self._metadata = token_metadata(api_key)
        self._tls = tls
        self._channel = open_aio_channel(address, tls)
        self._inference = rpc.InferenceStub(self._channel)
        self._media_channel: aio.Channel | None = None
        self._model: Model | None = None
        self._uploads = UploadCache()

    def generate(self, messages: Messages = (), **options: Unpack[GenerateOptions]) -> AsyncStream:
        """The answer's stream of events; see Client.generate.

        Nothing is sent before the stream is first used, and every error comes
        from there.
        """
        options = with_request_id(options)
        resumption: Resumption[AsyncStreamCall] | None = None
        if keep_s := options.get("resumable_s"):
            calls = answer_calls(self._inference, self._metadata, options, time.monotonic())
            resumption = Resumption(calls.resume, calls.cancel, keep_s)
        return AsyncStream(
            lambda has_lost_uploads: self._start(messages, options, has_lost_uploads), resumption
        )

    def resume(
        self,
        request_id: str,
        next_index: int = 0,
        *,
        tenant: str = "",
        resumable_s: float = DEFAULT_KEEP_S,
        timeout_s: float | None = None,
    ) -> AsyncStream:
        """As Client.resume; nothing is sent before the stream is first used."""
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        calls = AnswerCalls(self._inference, self._metadata, request_id, tenant, end_s)
        resumption: Resumption[AsyncStreamCall] = Resumption(calls.resume, calls.cancel, resumable_s)

        async def start(_has_lost_uploads: bool) -> AsyncStreamCall:
            return resumption.resume(next_index)

        return AsyncStream(start, resumption, next_index, can_restart=False)

    async def model(self) -> Model:
        """What is served, and its limits; asked once."""
        if self._model is None:
            try:
                reply = await self._inference.GetModel(
                    pb.GetModelRequest(), metadata=self._metadata, timeout=UNARY_TIMEOUT_S
                )
            except grpc.RpcError as error:
                raise error_from_call(error) from error
            self._model = model_from_proto(reply)
        return self._model

    async def status(self) -> ClusterStatus:
        """Instances and load. Raises AccessDenied without the cluster token or an admin's key."""
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
        call = self._inference.Generate(request, metadata=self._metadata, timeout=options.get("timeout_s"))
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
            self._media_channel = open_aio_channel(endpoint, self._tls)
        stub = rpc.MediaStub(self._media_channel)
        try:
            await stub.Upload(
                upload_requests(picture.data, tenant), metadata=self._metadata, timeout=UNARY_TIMEOUT_S
            )
        except grpc.RpcError as error:
            raise error_from_call(error, field=picture.field) from error

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
