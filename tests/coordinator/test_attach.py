"""Who may attach, under which name and with which roles."""

from __future__ import annotations

import grpc
import pytest

from core.access import token_metadata
from elasticmm.v1 import inference_pb2 as pb
from elasticmm.v1 import stage_control_pb2, stage_control_pb2_grpc
from tests.coordinator.conftest import TOKEN, Bench, MakeBench, failure_of


async def refusal(bench: Bench, *messages: stage_control_pb2.StageMessage, token: str = TOKEN):
    stub = stage_control_pb2_grpc.StageControlStub(bench.channel)
    call = stub.Attach(iter(messages), metadata=token_metadata(token))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    return failure_of(caught.value)


def register(bench: Bench, **changes: object) -> stage_control_pb2.StageMessage:
    fields = {
        "instance_id": "new",
        "epoch": 1,
        "roles": [pb.STAGE_DECODE],
        "model_fingerprint": bench.coordinator.model.family.fingerprint,
        "dtype": "float32",
        "block_tokens": 16,
        "total_kv_blocks": 10,
    }
    return stage_control_pb2.StageMessage(register=stage_control_pb2.Register(**{**fields, **changes}))


async def test_instances_hear_of_the_target_per_token(make_bench: MakeBench) -> None:
    bench = await make_bench("epd", slo_tpot_s=0.03)
    assert bench.stages[0].registered.tpot_target_us == 30_000


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model_fingerprint": "other"}, "register.model_fingerprint"),
        ({"dtype": "bfloat16"}, "register.dtype"),
        ({"block_tokens": 0}, "register.block_tokens"),
        ({"total_kv_blocks": 0}, "register.total_kv_blocks"),
        ({"roles": []}, "register.roles"),
    ],
)
async def test_instances_that_do_not_fit(bench: Bench, changes: dict[str, object], field: str) -> None:
    failure = await refusal(bench, register(bench, **changes))
    assert (failure.code, failure.field) == (grpc.StatusCode.FAILED_PRECONDITION, field)
    assert bench.coordinator.cluster.num_instances == 3
    await bench.assert_idle()


async def test_the_token_is_needed(bench: Bench) -> None:
    failure = await refusal(bench, register(bench), token="wrong")
    assert failure.code is grpc.StatusCode.UNAUTHENTICATED
    assert bench.coordinator.cluster.num_instances == 3


async def test_register_comes_first(bench: Bench) -> None:
    heartbeat = stage_control_pb2.StageMessage(heartbeat=stage_control_pb2.Heartbeat())
    failure = await refusal(bench, heartbeat)
    assert (failure.code, failure.field) == (grpc.StatusCode.INVALID_ARGUMENT, "register")
    await bench.assert_idle()


async def test_nonsense_ends_the_attachment(bench: Bench) -> None:
    failure = await refusal(bench, register(bench), stage_control_pb2.StageMessage())
    assert (failure.code, failure.field) == (grpc.StatusCode.INVALID_ARGUMENT, "message")
    await bench.until(lambda: bench.coordinator.cluster.num_instances == 3)
    await bench.assert_idle()


async def test_the_same_life_twice(bench: Bench) -> None:
    stage = bench.stages[0]
    failure = await refusal(bench, register(bench, instance_id=stage.name, epoch=stage.epoch))
    assert (failure.code, failure.field) == (grpc.StatusCode.FAILED_PRECONDITION, "register.instance_id")
    assert bench.coordinator.cluster.num_instances == 3


async def test_a_new_life_replaces_the_old(make_bench: MakeBench) -> None:
    bench = await make_bench()
    (old,) = await bench.add("epd", name="mine")
    (new,) = await bench.add("epd", name="mine")
    assert new.name == old.name == "mine"
    await bench.until(lambda: old.is_detached)
    bench.stages.remove(old)
    assert bench.coordinator.cluster.num_instances == 1
    await bench.assert_idle()
    assert "prefill" in new.kinds()


async def test_names_are_given_by_role(make_bench: MakeBench) -> None:
    bench = await make_bench("e", "d", "d", "ep")
    assert [stage.name for stage in bench.stages] == ["e0", "d0", "d1", "ep0"]


async def test_roles_are_given_by_the_topology(make_bench: MakeBench) -> None:
    bench = await make_bench("", "d", "", topology="e1p1d1")
    given = [
        {pb.Stage.Name(role) for command in stage.commands for role in command.set_roles.roles}
        for stage in bench.stages
    ]
    await bench.until(lambda: "set_roles" in bench.stages[2].kinds())
    assert bench.coordinator.cluster.is_ready
    assert bench.coordinator.cluster.num_missing == 0
    assert given[1] == set()


async def test_changed_roles_change_readiness(make_bench: MakeBench) -> None:
    bench = await make_bench("ep")
    (stage,) = bench.stages
    assert not bench.coordinator.cluster.is_ready
    heartbeat = stage_control_pb2.Heartbeat(roles=[pb.STAGE_ENCODE, pb.STAGE_PREFILL, pb.STAGE_DECODE])
    stage.report(stage_control_pb2.StageMessage(heartbeat=heartbeat))
    await bench.until(lambda: bench.coordinator.cluster.is_ready)
    await bench.assert_idle()
