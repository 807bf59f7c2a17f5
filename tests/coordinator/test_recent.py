"""What is kept of requests' times, and what GetRecent says of them."""

from __future__ import annotations

import grpc
import pytest

from coordinator.errors import NotFoundError, UnavailableError
from coordinator.recent import Recent
from core.clock import ManualClock
from core.lifecycle import RequestState
from elasticmm.v1 import admin_pb2 as pb
from elasticmm.v1 import inference_pb2
from tests.coordinator.conftest import Bench, MakeBench, ask_for
from tests.coordinator.test_cache_admin import call, refusal
from tests.coordinator.test_ending import running
from tests.coordinator.test_request import make_request


async def test_a_finished_request_has_all_its_times(bench: Bench) -> None:
    await bench.ask(text="hello", max_tokens=5, seed=1, request_id="mine", tenant="t")
    reply = await call(bench, "GetRecent", pb.GetRecentRequest(request_id="mine"))
    [trace] = reply.requests
    assert (trace.state, trace.tenant, trace.output_tokens, trace.num_dispatches) == ("finished", "t", 5, 1)
    assert 0 <= trace.queued_ms <= trace.dispatched_ms <= trace.first_token_ms <= trace.end_ms
    assert trace.end_ms <= trace.age_s * 1e3
    stages = [span.stage for span in trace.stages]
    assert sorted(stages) == [inference_pb2.STAGE_PREFILL, inference_pb2.STAGE_DECODE]
    assert (reply.slo_ttft_s, reply.slo_tpot_s, reply.slo_multimodal_ttft_s) == (2.0, 0.1, 2.0)


async def test_a_waiting_one_has_not_been_dispatched(make_bench: MakeBench) -> None:
    bench = await make_bench()
    await bench.add("epd", blocks=8)
    first = await running(bench)
    second = bench.inference.Generate(ask_for(max_tokens=100))
    await bench.until(lambda: bench.coordinator.dispatcher.num_waiting == 1)
    before, waiting = (await call(bench, "GetRecent", pb.GetRecentRequest())).requests
    assert (before.state, waiting.state) == ("decoding", "queued")
    assert [each.HasField("dispatched_ms") for each in (before, waiting)] == [True, False]
    assert (list(before.instance_ids), list(waiting.instance_ids)) == (["epd0"], [])
    first.cancel()
    second.cancel()
    await bench.assert_idle()


async def test_a_cancelled_one_is_kept_as_such(bench: Bench) -> None:
    asked = await running(bench)
    [trace] = (await call(bench, "GetRecent", pb.GetRecentRequest())).requests
    assert (trace.state, trace.HasField("end_ms")) == ("decoding", False)
    asked.cancel()
    await bench.until(lambda: not bench.num_requests)
    [ended] = (await call(bench, "GetRecent", pb.GetRecentRequest())).requests
    assert (ended.state, ended.HasField("end_ms")) == ("cancelled", True)


async def test_a_failed_one_says_why(bench: Bench) -> None:
    await running(bench)
    bench.coordinator.dispatcher.fail_all(UnavailableError("the end is near"))
    [failed] = (await call(bench, "GetRecent", pb.GetRecentRequest())).requests
    assert (failed.state, failed.error) == ("failed", "the end is near")


def test_the_end_is_when_the_last_token_was_there_and_old_ones_go() -> None:
    clock = ManualClock()
    recent = Recent({}, clock, num_kept=1)
    request = make_request(RequestState.FINISHED)
    clock.advance(2)
    recent.note_end(request)
    clock.advance(1)
    recent.note_end(request)
    assert [each.end_ms for each in recent.newest(None)] == [2000]
    request.request_id = "next"
    recent.note_end(request)
    assert [(each.request_id, each.end_ms) for each in recent.newest(None)] == [("next", 3000)]
    with pytest.raises(NotFoundError):
        recent.get("r")


async def test_limit_takes_the_newest(bench: Bench) -> None:
    for name in ("a", "b", "c"):
        await bench.ask(text="hello", max_tokens=2, request_id=name)
    reply = await call(bench, "GetRecent", pb.GetRecentRequest(limit=2))
    assert [each.request_id for each in reply.requests] == ["b", "c"]


async def test_an_unknown_one_is_not_found(bench: Bench) -> None:
    failure = await refusal(bench, "GetRecent", pb.GetRecentRequest(request_id="nobody"))
    assert (failure.code, failure.field) == (grpc.StatusCode.NOT_FOUND, "request_id")
