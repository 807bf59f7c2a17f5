"""The client for ordinary code."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Unpack, cast

import grpc

from elasticmm.v1 import inference_pb2 as pb
from elasticmm.v1 import inference_pb2_grpc as rpc
from elasticmm_client.admin import ask_to_migrate, fetch_status
from elasticmm_client.channel import CHANNEL_OPTIONS, UNARY_TIMEOUT_S
from elasticmm_client.errors import error_from_call
from elasticmm_client.messages import ChatMessage, ImageBytes, Messages, parse_messages, pictures_of
from elasticmm_client.migration import Migration
from elasticmm_client.model import Model, model_from_proto
from elasticmm_client.request import GenerateOptions, build_request
from elasticmm_client.status import ClusterStatus
from elasticmm_client.stream import Stream, StreamCall
from elasticmm_client.uploads import UploadCache, upload_requests


class Client:
    """Talks to one cluster; may be shared between threads.

    address: HOST:PORT of the coordinator. token: the cluster token, needed by
    `status` and `migrate` only.
    """

    def __init__(self, address: str, *, token: str | None = None) -> None:
        self.address = address
        self._token = token
        self._channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._inference = rpc.InferenceStub(self._channel)
        self._media_channel: grpc.Channel | None = None
        self._model: Model | None = None
        self._uploads = UploadCache()

    def generate(self, messages: Messages = (), **options: Unpack[GenerateOptions]) -> Stream:
        """Asks for an answer and returns its stream of events.

        messages: a string, or chat messages (see elasticmm_client.messages), or none with `prompt`;
        options: see GenerateOptions. Pictures given as bytes, path or PIL image are
        uploaded first, each once. Raises ElasticMMError, here or from the stream.
        """
        start_s = time.monotonic()
        parsed = parse_messages(messages)
        return Stream(self._start(parsed, options), start_s, lambda: self._start_again(parsed, options))

    def model(self) -> Model:
        """What is served, and its limits; asked once."""
        if self._model is None:
            try:
                reply = self._inference.GetModel(pb.GetModelRequest(), timeout=UNARY_TIMEOUT_S)
            except grpc.RpcError as error:
                raise error_from_call(error) from error
            self._model = model_from_proto(reply)
        return self._model

    def status(self) -> ClusterStatus:
        """Instances and load. Raises AccessDenied without the cluster token."""
        return fetch_status(self._channel, self._token)

    def migrate(self, request_id: str, to_instance: str | None = None) -> Migration:
        """Moves a running request's decoding to another instance; returns when it has moved.

        to_instance: None lets the coordinator choose. The request goes on meanwhile, and goes on
        where it was if this raises InvalidRequest (code FAILED_PRECONDITION says why it did not move,
        NOT_FOUND that there is no such request or instance). Raises AccessDenied without the cluster token.
        """
        return ask_to_migrate(self._channel, self._token, request_id, to_instance)

    def close(self) -> None:
        """Ends every call of this client."""
        self._channel.close()
        if self._media_channel is not None:
            self._media_channel.close()

    def _start(self, messages: list[ChatMessage], options: GenerateOptions) -> StreamCall:
        uploaded = self._upload(pictures_of(messages), options.get("tenant") or "")
        request = build_request(messages, options, uploaded)
        return cast(StreamCall, self._inference.Generate(request, timeout=options.get("timeout_s")))

    def _start_again(self, messages: list[ChatMessage], options: GenerateOptions) -> StreamCall:
        self._uploads.forget(pictures_of(messages), options.get("tenant") or "")
        return self._start(messages, options)

    def _upload(self, pictures: list[ImageBytes], tenant: str) -> dict[bytes, bytes]:
        """Digest by bytes of what the gateway keeps; empty where there is no gateway."""
        if not pictures or not self.model().media_endpoint:
            return {}
        ttl_s = self.model().limits.media_ttl_s
        for picture in self._uploads.missing(pictures, tenant, time.monotonic(), ttl_s):
            self._upload_one(picture, tenant)
        return self._uploads.use(pictures, tenant, time.monotonic())

    def _upload_one(self, picture: ImageBytes, tenant: str) -> None:
        if self._media_channel is None:
            self._media_channel = grpc.insecure_channel(self.model().media_endpoint, options=CHANNEL_OPTIONS)
        stub = rpc.MediaStub(self._media_channel)
        try:
            stub.Upload(upload_requests(picture.data, tenant), timeout=UNARY_TIMEOUT_S)
        except grpc.RpcError as error:
            raise error_from_call(error, field=picture.field) from error

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
