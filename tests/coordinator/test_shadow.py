"""A second policy set in the shadow of a whole coordinator."""

from __future__ import annotations

import grpc
import pytest

from core.access import token_metadata
from elasticmm.v1 import admin_pb2, admin_pb2_grpc
from tests.coordinator.conftest import TOKEN, Bench, MakeBench, failure_of


async def call(bench: Bench, method: str, request: object) -> object:
    stub = admin_pb2_grpc.AdminStub(bench.channel)
    return await getattr(stub, method)(request, metadata=token_metadata(TOKEN))


async def report_of(bench: Bench) -> admin_pb2.ShadowReport:
    return await call(bench, "GetShadow", admin_pb2.GetShadowRequest())


async def test_it_is_started_asked_and_ended_while_requests_run(make_bench: MakeBench) -> None:
    bench = await make_bench("epd", "epd", policy="replicas")
    await bench.ask(text="before", max_tokens=3)
    await call(bench, "StartShadow", admin_pb2.StartShadowRequest(policy="emp"))
    for number in range(4):
        await bench.ask(text=f"meanwhile {number}", request_id=f"r{number}", max_tokens=5)
    report = await report_of(bench)
    assert (report.policy, report.failure) == ("emp", "")
    assert report.same + report.elsewhere + report.held + report.skipped == 4
    why = await call(bench, "Why", admin_pb2.WhyRequest(of_shadow=True))
    assert {each.subject for each in why.decisions} >= {"r0", "r3"}
    assert all(each.is_shadow for each in why.decisions)
    acting = await call(bench, "Why", admin_pb2.WhyRequest(subject="r0"))
    assert [(each.piece, each.is_shadow) for each in acting.decisions] == [("routing", False)]
    last = await call(bench, "StopShadow", admin_pb2.StopShadowRequest())
    assert last.same == report.same
    await bench.assert_idle()


async def test_one_of_the_configuration_is_there_from_the_start(make_bench: MakeBench) -> None:
    bench = await make_bench("epd", policy="coupled", shadow="coupled")
    await bench.ask(max_tokens=3)
    assert (await report_of(bench)).same == 1


@pytest.mark.parametrize(
    ("method", "request_", "code"),
    [
        ("GetShadow", admin_pb2.GetShadowRequest(), grpc.StatusCode.FAILED_PRECONDITION),
        ("StopShadow", admin_pb2.StopShadowRequest(), grpc.StatusCode.FAILED_PRECONDITION),
        ("Why", admin_pb2.WhyRequest(of_shadow=True), grpc.StatusCode.FAILED_PRECONDITION),
        ("StartShadow", admin_pb2.StartShadowRequest(policy="x"), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_without_one_or_with_an_unknown_set_it_is_said(
    bench: Bench, method: str, request_: object, code: grpc.StatusCode
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(bench, method, request_)
    assert failure_of(caught.value).code is code


async def test_a_second_one_is_refused(make_bench: MakeBench) -> None:
    bench = await make_bench("epd", shadow="emp")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(bench, "StartShadow", admin_pb2.StartShadowRequest(policy="coupled"))
    assert "emp is in the shadow already" in failure_of(caught.value).message
