"""What clients call."""

# ruff: noqa: ARG002  (gRPC dictates the signatures)

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import grpc

from coordinator.access.guard import Guard
from coordinator.access.principal import Principal, Right
from coordinator.door import Door
from coordinator.errors import InvalidFieldError
from coordinator.events import Emit, Event
from coordinator.listening.headers_first import headers_first
from coordinator.listening.stalls import StallWatch
from coordinator.prompt.token_bytes import token_bytes
from coordinator.state import ServedDescription
from coordinator.tracing.parent import trace_parent
from coordinator.wire.inference import from_description, from_event, to_call
from elasticmm.v1 import inference_pb2 as pb
from elasticmm.v1 import inference_pb2_grpc as pb_grpc

Describe = Callable[[], ServedDescription]

_MAX_TOKEN_IDS = 2048


class InferenceServicer(pb_grpc.InferenceServicer):
    def __init__(self, door: Door, describe: Describe, guard: Guard, stalled_reader_s: float) -> None:
        self._door = door
        self._describe = describe
        self._guard = guard
        self._stalled_reader_s = stalled_reader_s

    async def Generate(  # type: ignore[override]
        self, request: pb.GenerateRequest, context: grpc.aio.ServicerContext
    ) -> None:
        trace = trace_parent(context.invocation_metadata() or ())
        call = replace(to_call(request), principal=self._caller(context), trace=trace)
        await self._door.generate(call, self._writer(context))

    async def Resume(  # type: ignore[override]
        self, request: pb.InferenceResumeRequest, context: grpc.aio.ServicerContext
    ) -> None:
        tenant = self._guard.tenant_of(self._caller(context), request.tenant)
        await self._door.resume(request.request_id, tenant, request.next_index, self._writer(context))

    async def Cancel(self, request: pb.CancelRequest, context: grpc.aio.ServicerContext) -> pb.CancelResponse:
        tenant = self._guard.tenant_of(self._caller(context), request.tenant)
        self._door.cancel(request.request_id, tenant)
        return pb.CancelResponse()

    async def GetModel(
        self, request: pb.GetModelRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetModelResponse:
        return from_description(self._describe())

    async def GetTokens(
        self, request: pb.GetTokensRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetTokensResponse:
        if len(request.ids) > _MAX_TOKEN_IDS:
            raise InvalidFieldError("ids", f"{len(request.ids)}, limit {_MAX_TOKEN_IDS}")
        return pb.GetTokensResponse(texts=[token_bytes(self._door.tokenizer, each) for each in request.ids])

    def _caller(self, context: grpc.aio.ServicerContext) -> Principal:
        """Raises UnauthenticatedError, NotAllowedError."""
        return self._guard.authenticate(context.invocation_metadata() or (), Right.INFER, context.peer())

    def _writer(self, context: grpc.aio.ServicerContext) -> Emit:
        """Raises StalledReaderError where the client does not read."""
        watch = StallWatch(self._stalled_reader_s)
        write = headers_first(context)

        async def emit(event: Event) -> None:
            await watch.run(write(from_event(event)))

        return emit
