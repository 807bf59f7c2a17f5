"""The Open Inference Protocol's door, asked for anything."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from coordinator.oip.answer import FINAL
from elasticmm.oip import open_inference_pb2 as pb
from elasticmm.oip import open_inference_pb2_grpc as rpc
from tests.coordinator.fuzz.calls import broken
from tests.coordinator.fuzz.conftest import Target
from tests.coordinator.fuzz.examples import examples
from tests.coordinator.fuzz.inferences import INFERS, METADATA
from tests.coordinator.fuzz.outcomes import REFUSALS, UNREADABLE, check_refusal
from tests.coordinator.oip.conftest import infer_request

SERVICE = "/inference.GRPCInferenceService/"


async def infer(target: Target, data: bytes) -> None:
    ask = target.bench.channel.unary_unary(
        f"{SERVICE}ModelInfer", response_deserializer=pb.ModelInferResponse.FromString
    )
    try:
        assert (await ask(data)).outputs
    except grpc.aio.AioRpcError as error:
        check_refusal(error)


@examples(250)
@given(INFERS)
def test_infer(target: Target, request: pb.ModelInferRequest) -> None:
    target.run(infer(target, request.SerializeToString()))


@examples(80)
@given(broken(INFERS | st.just(infer_request(max_tokens=2))))
def test_infer_by_broken_bytes(target: Target, data: bytes) -> None:
    target.run(infer(target, data))


async def stream(target: Target, messages: list[bytes]) -> None:
    """Every request of a stream has its own end; one that cannot be read ends them all."""
    ask = target.bench.channel.stream_stream(
        f"{SERVICE}ModelStreamInfer", response_deserializer=pb.ModelStreamInferResponse.FromString
    )
    num_final = 0
    try:
        async for response in ask(iter(messages)):
            check_response(response)
            num_final += response.infer_response.parameters[FINAL].bool_param
    except grpc.aio.AioRpcError as error:
        failure = check_refusal(error)
    else:
        assert num_final == len(messages)
        return
    assert failure.message.startswith(UNREADABLE)


def check_response(response: pb.ModelStreamInferResponse) -> None:
    if response.error_message:
        code, _, reason = response.error_message.partition(": ")
        assert code in {each.name for each in REFUSALS}, response.error_message
        assert reason


@examples(120)
@given(st.lists(INFERS, max_size=3), st.booleans())
def test_streams(target: Target, requests: list[Message], is_broken: bool) -> None:
    messages = [each.SerializeToString() for each in requests] + ([b"\x0a\x01\xff"] if is_broken else [])
    target.run(stream(target, messages))


@examples(60)
@given(METADATA, st.booleans())
def test_metadata(target: Target, call: tuple[str, Any], is_broken: bool) -> None:
    name, request = call
    data = request.SerializeToString() + (b"\x0a\x01\xff" if is_broken and name.startswith("Model") else b"")

    async def ask() -> None:
        try:
            await target.bench.channel.unary_unary(SERVICE + name)(data)
        except grpc.aio.AioRpcError as error:
            check_refusal(error)

    target.run(ask())


def test_the_service_has_no_other_calls() -> None:
    """Or they would have to be among the above."""
    names = {name for name in vars(rpc.GRPCInferenceServiceServicer) if name[0].isupper()}
    assert names == {
        "ServerLive",
        "ServerReady",
        "ModelReady",
        "ServerMetadata",
        "ModelMetadata",
        "ModelConfig",
        "ModelInfer",
        "ModelStreamInfer",
    }
