"""elasticmm.v1.Inference and Media, asked for anything."""

from __future__ import annotations

from typing import Any

import grpc
from hypothesis import given
from hypothesis import strategies as st

from elasticmm.v1 import inference_pb2 as pb
from elasticmm.v1 import inference_pb2_grpc as rpc
from tests.coordinator.conftest import ask_for
from tests.coordinator.fuzz.calls import FIELDS, GENERATES, PICTURES, broken
from tests.coordinator.fuzz.conftest import Target
from tests.coordinator.fuzz.examples import examples
from tests.coordinator.fuzz.messages import Told, any_message
from tests.coordinator.fuzz.outcomes import check_events, check_refusal

INFERENCE = "/elasticmm.v1.Inference/"


async def read(call: grpc.aio.UnaryStreamCall[Any, Any]) -> None:
    """To its end, of either kind."""
    try:
        check_events([event async for event in call])
    except grpc.aio.AioRpcError as error:
        check_refusal(error)


@examples(250)
@given(GENERATES)
def test_generate(target: Target, request: pb.GenerateRequest) -> None:
    async def ask() -> None:
        await read(target.bench.inference.Generate(request))

    target.run(ask())


@examples(100)
@given(broken(GENERATES | st.just(ask_for(max_tokens=2))))
def test_generate_by_broken_bytes(target: Target, data: bytes) -> None:
    async def ask() -> None:
        generate = target.bench.channel.unary_stream(
            f"{INFERENCE}Generate", response_deserializer=pb.GenerateEvent.FromString
        )
        await read(generate(data))

    target.run(ask())


OTHERS = st.one_of(
    st.tuples(st.just("Resume"), any_message(pb.InferenceResumeRequest, FIELDS)),
    st.tuples(st.just("Cancel"), any_message(pb.CancelRequest, FIELDS)),
    st.tuples(st.just("GetModel"), any_message(pb.GetModelRequest, FIELDS)),
    st.tuples(st.just("GetTokens"), any_message(pb.GetTokensRequest, FIELDS)),
)


@examples(60)
@given(OTHERS, st.booleans())
def test_other_calls(target: Target, call: tuple[str, Any], is_broken: bool) -> None:
    name, request = call
    data = request.SerializeToString() + (b"\x0a\x01\xff" if is_broken else b"")

    async def ask() -> None:
        channel = target.bench.channel
        if name == "Resume":
            await read(channel.unary_stream(INFERENCE + name)(data))
            return
        try:
            await channel.unary_unary(INFERENCE + name)(data)
        except grpc.aio.AioRpcError as error:
            check_refusal(error)

    target.run(ask())


UPLOADS = st.lists(
    any_message(pb.UploadRequest, Told({"elasticmm.v1.UploadRequest.data": PICTURES})), max_size=4
)


@examples(60)
@given(UPLOADS, st.booleans())
def test_uploads(target: Target, pieces: list[pb.UploadRequest], is_broken: bool) -> None:
    data = [piece.SerializeToString() for piece in pieces] + ([b"\x12\x01\xff"] if is_broken else [])

    async def ask() -> None:
        assert target.bench.gateway is not None
        async with grpc.aio.insecure_channel(f"127.0.0.1:{target.bench.gateway.port}") as channel:
            upload = channel.stream_unary(
                "/elasticmm.v1.Media/Upload", response_deserializer=pb.UploadResponse.FromString
            )
            try:
                assert len((await upload(iter(data))).digest) == 32
            except grpc.aio.AioRpcError as error:
                check_refusal(error)

    target.run(ask())


def test_the_service_has_no_other_calls() -> None:
    """Or they would have to be among the above."""
    names = {name for name in vars(rpc.InferenceServicer) if name[0].isupper()}
    assert names == {"Generate", "Resume", "Cancel", "GetModel", "GetTokens"}
