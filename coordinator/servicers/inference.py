"""What clients call."""

# ruff: noqa: ARG002  (gRPC dictates the signatures)

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import grpc

from coordinator.door import Door
from coordinator.errors import StalledReaderError
from coordinator.events import Event
from coordinator.state import ServedDescription
from coordinator.tracing.parent import trace_parent
from coordinator.wire.inference import from_description, from_event, to_call
from elasticmm.v1 import inference_pb2 as pb
from elasticmm.v1 import inference_pb2_grpc as pb_grpc

Describe = Callable[[], ServedDescription]


class InferenceServicer(pb_grpc.InferenceServicer):
    def __init__(self, door: Door, describe: Describe, stalled_reader_s: float) -> None:
        self._door = door
        self._describe = describe
        self._stalled_reader_s = stalled_reader_s

    async def Generate(  # type: ignore[override]
        self, request: pb.GenerateRequest, context: grpc.aio.ServicerContext
    ) -> None:
        async def emit(event: Event) -> None:
            try:
                async with asyncio.timeout(self._stalled_reader_s) as stalled:
                    await context.write(from_event(event))
            except TimeoutError as error:
                if stalled.expired():
                    raise StalledReaderError(f"nothing was read for {self._stalled_reader_s:g} s") from error
                raise

        call = replace(to_call(request), trace=trace_parent(context.invocation_metadata() or ()))
        await self._door.generate(call, emit)

    async def GetModel(
        self, request: pb.GetModelRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetModelResponse:
        return from_description(self._describe())
