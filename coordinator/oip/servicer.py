"""What clients of the Open Inference Protocol call."""

# ruff: noqa: ARG002  (gRPC dictates the signatures)

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import grpc

from coordinator.access.guard import Guard
from coordinator.access.principal import Principal, Right
from coordinator.door import Door
from coordinator.errors import InvalidFieldError, NotFoundError, ServiceError
from coordinator.events import Event
from coordinator.listening.headers_first import headers_first
from coordinator.oip.answer import Answer
from coordinator.oip.asked import AskedInference
from coordinator.oip.conversion import VERSION, check_version, to_asked
from coordinator.oip.metadata import model_config, model_metadata, server_metadata
from coordinator.oip.naming import with_client_names
from coordinator.oip.stream import Respond, StreamWriter, answer_all
from coordinator.oip.values import shortened
from elasticmm.oip import open_inference_pb2 as pb
from elasticmm.oip import open_inference_pb2_grpc as pb_grpc


class OpenInferenceServicer(pb_grpc.GRPCInferenceServiceServicer):
    """Whoever asks is told what lives and is ready; the rest needs the right to infer."""

    def __init__(
        self,
        door: Door,
        model: str,
        server_version: str,
        is_ready: Callable[[], bool],
        guard: Guard,
        *,
        context_tokens: int,
        stalled_reader_s: float,
    ) -> None:
        self._door = door
        self._model = model
        self._context_tokens = context_tokens
        self._server_version = server_version
        self._is_ready = is_ready
        self._guard = guard
        self._stalled_reader_s = stalled_reader_s

    async def ServerLive(
        self, request: pb.ServerLiveRequest, context: grpc.aio.ServicerContext
    ) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: pb.ServerReadyRequest, context: grpc.aio.ServicerContext
    ) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._is_ready())

    async def ModelReady(
        self, request: pb.ModelReadyRequest, context: grpc.aio.ServicerContext
    ) -> pb.ModelReadyResponse:
        """A model that is not served is not ready; to ask for it is no error."""
        is_served = request.name in ("", self._model) and request.version in ("", VERSION)
        return pb.ModelReadyResponse(ready=is_served and self._is_ready())

    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: grpc.aio.ServicerContext
    ) -> pb.ServerMetadataResponse:
        self._caller_of(context)
        return server_metadata(self._server_version)

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: grpc.aio.ServicerContext
    ) -> pb.ModelMetadataResponse:
        self._caller_of(context)
        self._check_model(request.name, request.version)
        return model_metadata(self._model)

    async def ModelConfig(
        self, request: pb.ModelConfigRequest, context: grpc.aio.ServicerContext
    ) -> pb.ModelConfigResponse:
        self._caller_of(context)
        self._check_model(request.name, request.version)
        return model_config(self._model, self._context_tokens)

    async def ModelInfer(
        self, request: pb.ModelInferRequest, context: grpc.aio.ServicerContext
    ) -> pb.ModelInferResponse:
        caller = self._caller_of(context)
        asked = to_asked(request)
        if asked.is_streamed:
            raise InvalidFieldError("stream", "must be false here, ModelStreamInfer streams")
        responses: list[pb.ModelInferResponse] = []

        async def keep(response: pb.ModelInferResponse) -> None:
            responses.append(response)

        await self._answer(asked, caller, keep)
        return responses[0]

    async def ModelStreamInfer(  # type: ignore[override]
        self, requests: AsyncIterator[pb.ModelInferRequest], context: grpc.aio.ServicerContext
    ) -> None:
        caller = self._caller_of(context)

        async def answer(request: pb.ModelInferRequest, respond: Respond) -> None:
            await self._answer(to_asked(request), caller, respond)

        await answer_all(requests, answer, StreamWriter(headers_first(context), self._stalled_reader_s))

    def _check_model(self, name: str, version: str) -> None:
        """Raises NotFoundError."""
        if name not in ("", self._model):
            raise NotFoundError("name", f"{shortened(name)!r} is not served here, {self._model!r} is")
        check_version(version)

    def _caller_of(self, context: grpc.aio.ServicerContext) -> Principal:
        """Raises UnauthenticatedError or NotAllowedError."""
        return self._guard.authenticate(context.invocation_metadata() or (), Right.INFER, context.peer())

    async def _answer(self, asked: AskedInference, caller: Principal, respond: Respond) -> None:
        """Hands every response to `respond`. Raises ServiceError with the names that the client used."""
        answer = Answer(asked, self._model, VERSION)

        async def emit(event: Event) -> None:
            if (response := answer.push(event)) is not None:
                await respond(response)

        try:
            await self._door.generate(replace(asked.call, principal=caller), emit)
        except ServiceError as error:
            raise with_client_names(error, asked.renamed) from error
