"""The coordinator as it is reached from here, until it is lost; a new link is made to what comes after."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from coordinator.calls import GenerateCall
from coordinator.errors import UnavailableError
from coordinator.events import Emit, TokensEvent
from coordinator.front.caller import Metadata, trace_of
from coordinator.front.channels import Channels
from coordinator.front.failures import RETRY_AFTER_S, translated
from coordinator.front.reach import Reach
from coordinator.front.token_store import TokenStore
from coordinator.state import ServedDescription
from coordinator.wire.answers import to_description, to_event
from coordinator.wire.requests import from_call
from elasticmm.v1 import inference_pb2 as pb

log = logging.getLogger(__name__)

_SERVICE = pb.DESCRIPTOR.services_by_name["Inference"].full_name
_SERVING = health_pb2.HealthCheckResponse.SERVING
_ASK_TIMEOUT_S = 10.0


class Link:
    """Calls are on behalf of whom `proof` proves; they raise what the coordinator raises, and
    UnavailableError where it is lost.
    """

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self.channels = Channels(self._open)
        self.tokens = TokenStore()

    async def retire(self) -> None:
        """Calls under way go on."""
        await self.channels.retire()

    async def watch(self) -> AsyncIterator[bool]:
        """Whether the coordinator has every stage, whenever that changes; ends when it is lost."""
        async with self._open() as channel:
            request = health_pb2.HealthCheckRequest(service=_SERVICE)
            try:
                async for response in health_pb2_grpc.HealthStub(channel).Watch(request):
                    yield response.status == _SERVING
            except grpc.aio.AioRpcError as error:
                raise translated(error) from error

    async def describe(self, proof: Metadata) -> ServedDescription:
        async with self.channels.lend() as stub:
            try:
                return to_description(
                    await stub.GetModel(pb.GetModelRequest(), metadata=proof, timeout=_ASK_TIMEOUT_S)
                )
            except grpc.aio.AioRpcError as error:
                raise translated(error) from error

    async def generate(self, proof: Metadata, call: GenerateCall, emit: Emit) -> None:
        """See Door.generate. Events of log probabilities come once `tokens` knows what they show."""

        async def ask(ids: list[int]) -> Iterable[bytes]:
            response: pb.GetTokensResponse = await stub.GetTokens(
                pb.GetTokensRequest(ids=ids), metadata=proof, timeout=_ASK_TIMEOUT_S
            )
            return response.texts

        async with self.channels.lend() as stub:
            stream = stub.Generate(from_call(call), metadata=(*proof, *trace_of(call.trace)))
            try:
                async for message in stream:
                    event = to_event(message)
                    if isinstance(event, TokensEvent):
                        await self.tokens.learn(event, ask)
                    if event is not None:
                        await emit(event)
            except grpc.aio.AioRpcError as error:
                raise translated(error) from error
            finally:
                stream.cancel()

    def _open(self) -> grpc.aio.Channel:
        """Raises UnavailableError where a certificate cannot be read."""
        try:
            return self._reach.open()
        except OSError as error:
            log.error("%s: %s", self._reach.address, error)
            raise UnavailableError("the coordinator cannot be reached", RETRY_AFTER_S) from error
