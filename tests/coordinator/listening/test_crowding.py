"""gRPC calls and connections past the bounds."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from coordinator.errors import OverloadedError
from coordinator.listening.crowd import Crowd
from core.access import token_metadata
from elasticmm.v1 import admin_pb2, admin_pb2_grpc
from elasticmm.v1 import inference_pb2 as pb
from tests.coordinator.conftest import TOKEN, Bench, MakeBench, ask_for, failure_of, until

SERVING = health_pb2.HealthCheckResponse.SERVING


def test_a_crowd_counts_who_is_inside_and_who_was_refused() -> None:
    crowd = Crowd("calls", 1, "max_calls")
    with crowd.inside(), pytest.raises(OverloadedError) as caught, crowd.inside():
        pass
    assert (caught.value.quota, caught.value.retry_after_s) == ("max_calls", 1.0)
    assert (crowd.num_inside, crowd.num_refused) == (0, 1)
    assert crowd.enter()


async def full(make_bench: MakeBench) -> tuple[Bench, Any, Crowd]:
    """A coordinator with one call, which is as many as there may be."""
    bench = await make_bench("e", "p", "d", max_calls=1)
    bench.stages[2].pause_at = 2
    call = bench.inference.Generate(ask_for(max_tokens=9))
    await call.read()
    crowd, *_ = bench.coordinator.watch.crowds._crowds
    assert (crowd.name, crowd.num_inside) == ("grpc", 1)
    return bench, call, crowd


async def test_one_call_too_many_is_told_when_to_come_back(make_bench: MakeBench) -> None:
    bench, call, crowd = await full(make_bench)
    failure = await bench.fail()
    assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (failure.quota, failure.retry_after_s) == ("max_calls", 1.0)
    assert failure.message == "1 are under way, as many as may be (max_calls)"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await bench.inference.GetModel(pb.GetModelRequest())
    assert failure_of(caught.value).quota == "max_calls"
    stub = reflection_pb2_grpc.ServerReflectionStub(bench.channel)
    reflecting = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await reflecting.read()
    assert failure_of(caught.value).quota == "max_calls"
    _, metrics = bench.coordinator.watch.metrics.render()
    for line in (b'inside{door="grpc"} 1.0', b'limit{door="grpc"} 1.0', b'refused_total{door="grpc"} 3.0'):
        assert b"\nelasticmm:door_" + line in metrics
    bench.stages[2].resume()
    while not (await call.read()).HasField("finished"):
        pass
    await until(lambda: not crowd.num_inside)
    await bench.assert_idle()


async def test_probes_admins_and_stage_servers_are_not_counted(make_bench: MakeBench) -> None:
    bench, call, crowd = await full(make_bench)
    health = health_pb2_grpc.HealthStub(bench.channel)
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == SERVING
    watching = health.Watch(health_pb2.HealthCheckRequest())
    assert (await watching.read()).status == SERVING
    admin = admin_pb2_grpc.AdminStub(bench.channel)
    await admin.GetStatus(admin_pb2.GetStatusRequest(), metadata=token_metadata(TOKEN))
    await bench.add("epd")
    await until(lambda: len(bench.coordinator.cluster.status()) == 4)
    watching.cancel()
    call.cancel()
    bench.stages[2].resume()
    await until(lambda: not crowd.num_inside)
    await bench.assert_idle()


async def test_one_connection_too_many(make_bench: MakeBench) -> None:
    bench = await make_bench(max_connections=1)
    await bench.inference.GetModel(pb.GetModelRequest())
    own = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.insecure_channel(bench.address, options=own) as other:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await type(bench.inference)(other).GetModel(pb.GetModelRequest())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await bench.channel.close()
        await type(bench.inference)(other).GetModel(pb.GetModelRequest(), wait_for_ready=True, timeout=60)
