"""Bytes that are no message get a status of the caller's fault, on every kind of call."""

from __future__ import annotations

import grpc
import pytest

from tests.coordinator.conftest import Bench, Failure, failure_of

NO_UTF8 = b"\x0a\x02\xff\xfe"
OIP = "/inference.GRPCInferenceService"


async def fail(call: grpc.aio.Call) -> Failure:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call if isinstance(call, grpc.aio.UnaryUnaryCall) else [each async for each in call]
    return failure_of(caught.value)


async def test_on_every_kind_of_call(bench: Bench) -> None:
    channel = bench.channel
    for call in (
        channel.unary_stream("/elasticmm.v1.Inference/Generate")(NO_UTF8),
        channel.unary_unary("/elasticmm.v1.Inference/Cancel")(NO_UTF8),
        channel.unary_unary(f"{OIP}/ModelInfer")(NO_UTF8),
        channel.stream_stream(f"{OIP}/ModelStreamInfer")(iter([NO_UTF8])),
    ):
        failure = await fail(call)
        assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
        assert failure.message.startswith("the message cannot be read")
    await bench.assert_idle()


async def test_who_may_not_call_is_told_that_first(bench: Bench) -> None:
    failure = await fail(bench.channel.unary_unary("/elasticmm.v1.Admin/GetStatus")(NO_UTF8))
    assert failure.code is grpc.StatusCode.UNAUTHENTICATED
