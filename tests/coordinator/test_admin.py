"""Status, description, health, reflection, shutdown."""

from __future__ import annotations

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from coordinator.listening.listeners import ADMIN, INFERENCE, STAGE_CONTROL
from core.access import token_metadata
from elasticmm.v1 import admin_pb2, admin_pb2_grpc, stage_control_pb2
from elasticmm.v1 import inference_pb2 as pb
from tests.coordinator.conftest import TOKEN, Bench, MakeBench

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def status_of(bench: Bench) -> admin_pb2.GetStatusResponse:
    stub = admin_pb2_grpc.AdminStub(bench.channel)
    return await stub.GetStatus(admin_pb2.GetStatusRequest(), metadata=token_metadata(TOKEN))


async def health_of(bench: Bench, service: str) -> int:
    stub = health_pb2_grpc.HealthStub(bench.channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status


async def test_status(make_bench: MakeBench) -> None:
    bench = await make_bench("e", "p", topology="e1p1d2")
    status = await status_of(bench)
    assert (status.model, status.topology, status.instances_missing) == ("checkpoint", "e1p1d2", 2)
    assert [each.info.instance_id for each in status.instances] == ["e0", "p0"]
    assert list(status.instances[0].info.roles) == [pb.STAGE_ENCODE]
    assert status.instances[1].load.free_kv_blocks == 1000
    assert status.version
    await bench.add("d", "d")
    await bench.ask(max_tokens=2)
    status = await status_of(bench)
    assert (status.instances_missing, status.requests_finished, status.requests_failed) == (0, 1, 0)


async def test_status_counts_what_runs_and_waits(make_bench: MakeBench) -> None:
    bench = await make_bench()
    (stage,) = await bench.add("epd", blocks=8)
    stage.pause_at = 1
    calls = [bench.inference.Generate(pb.GenerateRequest(messages=[user()])) for _ in range(3)]
    await bench.until(lambda: bench.num_requests == 3)
    status = await status_of(bench)
    assert (status.requests_running, status.requests_waiting) == (1, 2)
    assert status.instances[0].requests == 1
    stage.pause_at = None
    for call in calls:
        call.cancel()
    await bench.assert_idle()


async def test_status_shows_the_newest_transfers(make_bench: MakeBench) -> None:
    bench = await make_bench()
    (old,) = await bench.add("epd", name="mine")
    for committed in (1, 2):
        sent = stage_control_pb2.TransferCounters(
            peer_instance_id="d0", transport="shm", committed=committed, failures={"TLS": 3}
        )
        load = stage_control_pb2.Load(quarantined_blocks=5)
        heartbeat = stage_control_pb2.Heartbeat(load=load, transfers=[sent])
        old.report(stage_control_pb2.StageMessage(heartbeat=heartbeat))
    registered = bench.coordinator.cluster
    await bench.until(lambda: [each.committed for each in registered.status()[0].transfers] == [2])
    (instance,) = (await status_of(bench)).instances
    assert (list(instance.transfers), instance.load.quarantined_blocks) == ([sent], 5)
    await bench.add("epd", name="mine")  # a new life
    bench.stages.remove(old)
    assert list((await status_of(bench)).instances[0].transfers) == []


def user() -> pb.Message:
    return pb.Message(role="user", parts=[pb.Part(text="x")])


async def test_admin_needs_the_token(bench: Bench) -> None:
    stub = admin_pb2_grpc.AdminStub(bench.channel)
    for call in (stub.GetStatus(admin_pb2.GetStatusRequest()), stub.Shutdown(admin_pb2.ShutdownRequest())):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert not bench.coordinator.stopping.is_set()


async def test_shutdown_is_asked_for(bench: Bench) -> None:
    stub = admin_pb2_grpc.AdminStub(bench.channel)
    await stub.Shutdown(admin_pb2.ShutdownRequest(), metadata=token_metadata(TOKEN))
    assert bench.coordinator.stopping.is_set()


async def test_description(make_bench: MakeBench) -> None:
    bench = await make_bench("epd", gateway=True)
    model = await bench.inference.GetModel(pb.GetModelRequest())
    assert model.model == "checkpoint"
    assert model.limits.context_tokens == bench.coordinator.model.context_tokens
    assert model.limits.media_ttl.seconds == 600
    assert (await health_at(model.media_endpoint)) == SERVING


async def health_at(endpoint: str) -> int:
    async with grpc.aio.insecure_channel(endpoint) as channel:
        return (await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())).status


async def test_inference_serves_while_all_stages_are_played(make_bench: MakeBench) -> None:
    bench = await make_bench("e", "p")
    assert await health_of(bench, INFERENCE) == NOT_SERVING
    for service in ("", STAGE_CONTROL, ADMIN):
        assert await health_of(bench, service) == SERVING
    (decoder,) = await bench.add("d")
    assert await health_of(bench, INFERENCE) == SERVING
    await decoder.crash()
    bench.stages.remove(decoder)
    await bench.until(lambda: not bench.coordinator.cluster.is_ready)
    assert await health_of(bench, INFERENCE) == NOT_SERVING


async def test_reflection_can_be_closed_at_both_doors(make_bench: MakeBench) -> None:
    closed = await make_bench(gateway=True, reflection=False)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    for address in (closed.address, closed.coordinator.media_endpoint):
        async with grpc.aio.insecure_channel(address) as channel:
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                _ = [reply async for reply in stub.ServerReflectionInfo(iter((request,)))]
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_reflection(bench: Bench) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(bench.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    replies = [reply async for reply in stub.ServerReflectionInfo(iter([request]))]
    names = {service.name for service in replies[0].list_services_response.service}
    assert {INFERENCE, STAGE_CONTROL, ADMIN, "grpc.health.v1.Health"} <= names
