"""The client for ordinary code."""

from __future__ import annotations

import time
from contextlib import suppress
from types import TracebackType
from typing import Unpack, cast

import grpc

from elasticmm.v1 import inference_pb2 as pb
from elasticmm.v1 import inference_pb2_grpc as rpc
from elasticmm_client.admin import ask_to_migrate, fetch_status
from elasticmm_client.channel import UNARY_TIMEOUT_S, open_channel, token_metadata
from elasticmm_client.errors import error_from_call
from elasticmm_client.messages import ChatMessage, ImageBytes, Messages, parse_messages, pictures_of
from elasticmm_client.migration import Migration
from elasticmm_client.model import Model, model_from_proto
from elasticmm_client.request import GenerateOptions, build_request, with_request_id
from elasticmm_client.resuming import DEFAULT_KEEP_S, AnswerCalls, Resumption, answer_calls
from elasticmm_client.status import ClusterStatus
from elasticmm_client.stream import Stream, StreamCall
from elasticmm_client.tls import Tls
from elasticmm_client.uploads import UploadCache, upload_requests


class Client:
    """Talks to one cluster; may be shared between threads.

    address: HOST:PORT of the coordinator. token: the cluster token, needed by
    `status` and `migrate` only, unless the API key has the right `admin`. api_key: where the
    cluster has keys; calls that name no tenant are its tenant's. tls: None speaks plain text.
    """

    def __init__(
        self, address: str, *, token: str | None = None, api_key: str | None = None, tls: Tls | None = None
    ) -> None:
        self.address = address
        self._token = token or api_key  # for admin calls
        self._metadata = token_metadata(api_key)
        self._tls = tls
        self._channel = open_channel(address, tls)
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
        options = with_request_id(options)
        resumption = None
        if keep_s := options.get("resumable_s"):
            resumption = self._resumption(
                answer_calls(self._inference, self._metadata, options, start_s), keep_s
            )
        call = self._start(parsed, options)
        return Stream(call, start_s, lambda: self._start_again(parsed, options), resumption)

    def resume(
        self,
        request_id: str,
        next_index: int = 0,
        *,
        tenant: str = "",
        resumable_s: float = DEFAULT_KEEP_S,
        timeout_s: float | None = None,
    ) -> Stream:
        """Goes on with the answer of a resumable request, of this client or another, from a token on.

        Whoever read it until now gets a ServerError (ABORTED). resumable_s: for how long a lost call is tried
        again. The stream, its text and its result have the tokens from `next_index` on, and raise
        InvalidRequest where the answer is not kept (NOT_FOUND) or the index is not there (OUT_OF_RANGE).
        """
        start_s = time.monotonic()
        end_s = None if timeout_s is None else start_s + timeout_s
        calls = AnswerCalls(self._inference, self._metadata, request_id, tenant, end_s)
        resumption = self._resumption(calls, resumable_s)
        return Stream(resumption.resume(next_index), start_s, None, resumption, next_index)

    def model(self) -> Model:
        """What is served, and its limits; asked once."""
        if self._model is None:
            try:
                reply = self._inference.GetModel(
                    pb.GetModelRequest(), metadata=self._metadata, timeout=UNARY_TIMEOUT_S
                )
            except grpc.RpcError as error:
                raise error_from_call(error) from error
            self._model = model_from_proto(reply)
        return self._model

    def status(self) -> ClusterStatus:
        """Instances and load. Raises AccessDenied without the cluster token or an admin's key."""
        return fetch_status(self._channel, self._token)

    def migrate(self, request_id: str, to_instance: str | None = None) -> Migration:
        """Moves a running request's decoding to another instance; returns when it has moved.

        to_instance: None lets the coordinator choose. The request goes on meanwhile, and goes on
        where it was if this raises InvalidRequest (code FAILED_PRECONDITION says why it did not move,
        NOT_FOUND that there is no such request or instance). Raises AccessDenied without the cluster
        token or an admin's key.
        """
        return ask_to_migrate(self._channel, self._token, request_id, to_instance)

    def close(self) -> None:
        """Ends every call of this client."""
        self._channel.close()
        if self._media_channel is not None:
            self._media_channel.close()

    def _resumption(self, calls: AnswerCalls, keep_s: float) -> Resumption[StreamCall]:
        def stop() -> None:
            with suppress(grpc.RpcError):  # it ended meanwhile, or cannot be reached and expires
                calls.cancel()

        return Resumption(calls.resume, stop, keep_s)

    def _start(self, messages: list[ChatMessage], options: GenerateOptions) -> StreamCall:
        uploaded = self._upload(pictures_of(messages), options.get("tenant") or "")
        request = build_request(messages, options, uploaded)
        return cast(
            StreamCall,
            self._inference.Generate(request, metadata=self._metadata, timeout=options.get("timeout_s")),
        )

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
            self._media_channel = open_channel(self.model().media_endpoint, self._tls)
        stub = rpc.MediaStub(self._media_channel)
        try:
            stub.Upload(
                upload_requests(picture.data, tenant), metadata=self._metadata, timeout=UNARY_TIMEOUT_S
            )
        except grpc.RpcError as error:
            raise error_from_call(error, field=picture.field) from error

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
