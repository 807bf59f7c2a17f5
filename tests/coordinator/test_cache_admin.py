"""What admins see of caches and order, over gRPC."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from coordinator.policy.view import Placement
from coordinator.policy.warmth import Warmth
from core.access import token_metadata
from core.cache.scope import CacheScope
from elasticmm.v1 import admin_pb2 as pb
from elasticmm.v1 import admin_pb2_grpc, inference_pb2, stage_control_pb2
from tests.coordinator.cache.test_explanations import FIELDS, asked
from tests.coordinator.conftest import TOKEN, Bench, Failure, MakeBench, failure_of

KV, EMBEDDING = stage_control_pb2.CACHE_POOL_KV, stage_control_pb2.CACHE_POOL_EMBEDDING


async def call(bench: Bench, method: str, request: Any) -> Any:
    stub = admin_pb2_grpc.AdminStub(bench.channel)
    return await getattr(stub, method)(request, metadata=token_metadata(TOKEN))


async def refusal(bench: Bench, method: str, request: Any) -> Failure:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(bench, method, request)
    return failure_of(caught.value)


async def test_stats_are_those_of_the_newest_heartbeats(bench: Bench) -> None:
    counters = stage_control_pb2.CacheCounters(pool=KV, entries=3, hits=2, evictions={"room": 5}, saved_s=1.5)
    heartbeat = stage_control_pb2.Heartbeat(caches=[counters])
    bench.stages[1].report(stage_control_pb2.StageMessage(heartbeat=heartbeat))
    await bench.until(lambda: [each for each in bench.coordinator.registry if each.caches])
    reply = await call(bench, "GetCache", pb.GetCacheRequest())
    assert [each.instance_id for each in reply.instances] == ["e0", "p0", "d0"]
    assert [list(each.caches) for each in reply.instances] == [[], [counters], []]


async def test_stats_count_the_index(bench: Bench) -> None:
    stage, cache = bench.stages[1], bench.coordinator.cache
    stage.report(stage.cache.keep(bytes([n]) * 32 for n in range(3)))
    await bench.until(lambda: cache.num_keys)
    reply = await call(bench, "GetCache", pb.GetCacheRequest())
    assert (reply.index_keys, reply.index_bytes) == (3, cache.size_bytes)


async def test_flush_of_everything(make_bench: MakeBench, tmp_path: Path) -> None:
    bench = await make_bench("e", "p", "d", audit_log=tmp_path / "audit")
    reply = await call(bench, "FlushCache", pb.FlushCacheRequest(reason="new prompts"))
    assert list(reply.instance_ids) == ["e0", "p0", "d0"]
    await bench.until(lambda: all("flush_cache" in stage.kinds() for stage in bench.stages))
    note = json.loads((tmp_path / "audit").read_text().splitlines()[-1])
    assert (note["event"], note["reason"], note["tenant"], note["pool"]) == (
        "cache_flush",
        "new prompts",
        None,
        None,
    )
    assert note["instances"] == ["e0", "p0", "d0"]
    assert "127.0.0.1" in note["peer"]


async def test_flush_of_one_tenant_in_one_pool_of_one_instance(bench: Bench) -> None:
    request = pb.FlushCacheRequest(tenant="t", pool=EMBEDDING, instance_id="p0")
    assert list((await call(bench, "FlushCache", request)).instance_ids) == ["p0"]
    await bench.until(lambda: "flush_cache" in bench.stages[1].kinds())
    told = bench.stages[1].commands[-1].flush_cache
    assert (told.tenant, told.pool) == ("t", EMBEDDING)
    assert [("flush_cache" in stage.kinds()) for stage in bench.stages] == [False, True, False]


@pytest.mark.parametrize(
    ("request_", "code", "field"),
    [
        (pb.FlushCacheRequest(instance_id="no"), grpc.StatusCode.NOT_FOUND, "instance_id"),
        (pb.FlushCacheRequest(pool=77), grpc.StatusCode.INVALID_ARGUMENT, "pool"),  # type: ignore[arg-type]
    ],
)
async def test_flushes_that_are_refused(
    bench: Bench, request_: pb.FlushCacheRequest, code: grpc.StatusCode, field: str
) -> None:
    failure = await refusal(bench, "FlushCache", request_)
    assert (failure.code, failure.field) == (code, field)
    assert not any("flush_cache" in stage.kinds() for stage in bench.stages)


async def test_explain(bench: Bench) -> None:
    explanations = bench.coordinator.explanations
    request = asked(num_media=2, tenant="t", scope=CacheScope.CLUSTER)
    warmth = Warmth({"p0": 96}, (frozenset({"e0"}), frozenset()))
    placement = Placement("r", ("e0", "e1"), "p1", "d0", 0.0, held=frozenset({0}))
    explanations.note_dispatch(request, warmth, placement)
    request.is_prefilled, request.cached_media = True, {0}
    explanations.note_end(request)
    reply = await call(bench, "ExplainCache", pb.ExplainCacheRequest(request_id="r"))
    assert (reply.request_id, reply.tenant, reply.scope) == ("r", "t", inference_pb2.CACHE_SCOPE_CLUSTER)
    assert (reply.prompt_tokens, reply.cached_tokens, reply.known_tokens) == (100, 0, 96)
    assert (reply.known_instance_id, reply.prefill_instance_id) == ("p0", "p1")
    assert [(each.field, each.was_cached, each.encode_instance_id) for each in reply.media] == [
        (FIELDS[0], True, "e0"),
        (FIELDS[1], False, "e1"),
    ]
    assert list(reply.media[0].known_instance_ids) == ["e0"]
    assert any("the 96 tokens on p0 were not used" in each for each in reply.reasons)


async def test_what_was_weighed_is_said_where_a_prefix_was_left(bench: Bench) -> None:
    await bench.ask(request_id="r", max_tokens=1)  # so that there is a decision about it
    (decision,) = bench.coordinator.planner.why("r", None)
    known = Warmth({"x": 96})
    bench.coordinator.explanations.note_dispatch(asked(), known, Placement("r", (), "p0", "d0", 0.0))
    reply = await call(bench, "ExplainCache", pb.ExplainCacheRequest(request_id="r"))
    name, value = next(iter(decision.numbers.items()))
    assert f"{name} {value:.4g}" in "\n".join(reply.reasons)


async def test_explain_of_what_is_not_remembered(bench: Bench) -> None:
    failure = await refusal(bench, "ExplainCache", pb.ExplainCacheRequest(request_id="no"))
    assert (failure.code, failure.field) == (grpc.StatusCode.NOT_FOUND, "request_id")


@pytest.mark.parametrize("method", ["GetCache", "FlushCache", "ExplainCache"])
async def test_they_need_the_token(bench: Bench, method: str) -> None:
    stub = admin_pb2_grpc.AdminStub(bench.channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(stub, method)(getattr(pb, f"{method}Request")())
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
