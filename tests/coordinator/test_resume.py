"""Resumable requests over the wire: the call is lost, the answer is not."""

from __future__ import annotations

import grpc
import pytest

from coordinator.config import ResumeLimits
from elasticmm.v1 import inference_pb2 as pb
from tests.coordinator.conftest import Answer, Bench, MakeBench, ask_for, failure_of, picture
from tests.coordinator.fake_stage import fake_token
from tests.coordinator.test_ending import end_of

TOKENS = [fake_token(1, index) for index in range(50)]


def resumable(keep_s: float = 100.0, **fields: object) -> pb.GenerateRequest:
    request = ask_for(request_id="r", max_tokens=50, seed=1, **fields)
    request.resumable.FromNanoseconds(round(keep_s * 1e9))
    return request


async def lost(bench: Bench, request: pb.GenerateRequest) -> list[pb.Tokens]:
    """The first tokens of a request whose connection breaks while it decodes."""
    for stage in bench.stages:
        stage.pause_at = 3
    events: list[pb.Tokens] = []
    async with grpc.aio.insecure_channel(bench.address) as channel:
        call = type(bench.inference)(channel).Generate(request)
        while sum(len(event.token_ids) for event in events) < 3:
            event = await call.read()
            if event.HasField("tokens"):
                events.append(event.tokens)
    return events


def go_on(bench: Bench) -> None:
    for stage in bench.stages:
        stage.resume()


async def resume(bench: Bench, next_index: int, **fields: str) -> Answer:
    answer = Answer()
    request = pb.InferenceResumeRequest(request_id="r", next_index=next_index, **fields)
    async for event in bench.inference.Resume(request):
        match event.WhichOneof("event"):
            case "accepted":
                answer.accepted = event.accepted
            case "tokens":
                answer.tokens.append(event.tokens)
            case "finished":
                answer.finished = event.finished
    return answer


async def refusal(bench: Bench, next_index: int = 0, **fields: str) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await resume(bench, next_index, **fields)
    return failure_of(caught.value).code


async def assert_idle(bench: Bench) -> None:
    """Also nothing of the answer is left once it is cancelled."""
    bench.coordinator.answers.check_integrity()
    if len(bench.coordinator.answers):
        await bench.inference.Cancel(pb.CancelRequest(request_id="r"))
    assert not len(bench.coordinator.answers)
    await bench.assert_idle()


async def test_no_index_twice_and_none_missing(bench: Bench) -> None:
    undisturbed = await bench.ask(max_tokens=50, seed=1)
    before = await lost(bench, resumable())
    go_on(bench)
    rest = await resume(bench, 3)
    rest.tokens = before + rest.tokens
    assert rest.token_ids == TOKENS
    assert rest.text == undisturbed.text
    assert rest.accepted.request_id == "r"
    assert rest.finished.usage.completion_tokens == 50
    await assert_idle(bench)


async def test_a_picture_is_leased_until_the_end(make_bench: MakeBench) -> None:
    bench = await make_bench("e", "p", "d", gateway=True)
    await lost(bench, resumable(images=(pb.ImagePart(data=picture()),)))
    assert bench.gateway.store.num_leases == 1
    go_on(bench)
    assert (await resume(bench, 0)).token_ids == TOKENS
    await bench.until(lambda: bench.gateway.store.num_leases == 0)
    await assert_idle(bench)


async def test_it_goes_on_unread_and_stays(bench: Bench) -> None:
    await lost(bench, resumable())
    assert bench.num_requests == 1
    go_on(bench)
    await bench.until(lambda: not bench.num_requests)
    for next_index in (0, 17, 50):
        answer = await resume(bench, next_index)
        assert [i for event in answer.tokens for i in event.token_ids] == TOKENS[next_index:]
    await assert_idle(bench)


async def test_a_second_reader_takes_over(bench: Bench) -> None:
    for stage in bench.stages:
        stage.pause_at = 3
    first = bench.inference.Generate(resumable())
    await first.read()
    second = bench.inference.Resume(pb.InferenceResumeRequest(request_id="r"))
    await second.read()
    assert await end_of(first) is grpc.StatusCode.ABORTED
    go_on(bench)
    assert await end_of(second) is grpc.StatusCode.OK
    await assert_idle(bench)


async def test_who_may_not_resume(bench: Bench) -> None:
    assert await refusal(bench) is grpc.StatusCode.NOT_FOUND
    await lost(bench, resumable())
    assert await refusal(bench, tenant="other") is grpc.StatusCode.NOT_FOUND
    assert await refusal(bench, 51) is grpc.StatusCode.OUT_OF_RANGE
    await assert_idle(bench)
    assert await refusal(bench) is grpc.StatusCode.NOT_FOUND


async def test_tokens_beyond_the_bound_are_gone(make_bench: MakeBench) -> None:
    bench = await make_bench("epd", resume=ResumeLimits(tokens=10))
    await lost(bench, resumable())
    go_on(bench)
    await bench.until(lambda: not bench.num_requests)
    assert await refusal(bench, 39) is grpc.StatusCode.OUT_OF_RANGE
    assert [i for event in (await resume(bench, 40)).tokens for i in event.token_ids] == TOKENS[40:]
    await assert_idle(bench)


async def test_unread_it_expires_and_all_stages_stop(bench: Bench) -> None:
    await lost(bench, resumable(keep_s=0.05))
    await bench.until(lambda: not bench.num_requests)
    assert await refusal(bench) is grpc.StatusCode.NOT_FOUND
    go_on(bench)
    await assert_idle(bench)


async def test_cancel_stops_every_stage(bench: Bench) -> None:
    await lost(bench, resumable())
    await bench.inference.Cancel(pb.CancelRequest(request_id="r"))
    await bench.until(lambda: "cancel" in bench.stages[2].kinds())
    go_on(bench)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await bench.inference.Cancel(pb.CancelRequest(request_id="r"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    await assert_idle(bench)


async def test_its_own_deadline_ends_it(bench: Bench) -> None:
    await lost(bench, resumable(deadline_s=0.2))
    await bench.until(lambda: not bench.num_requests)
    assert await refusal(bench) is grpc.StatusCode.DEADLINE_EXCEEDED
    go_on(bench)
    await assert_idle(bench)


async def test_a_bad_request_is_refused_as_ever(bench: Bench) -> None:
    failure = await bench.fail(resumable(model="other"))
    assert (failure.code, failure.field) == (grpc.StatusCode.NOT_FOUND, "model")
    failure = await bench.fail(resumable(keep_s=301))
    assert (failure.code, failure.field) == (grpc.StatusCode.INVALID_ARGUMENT, "resumable")
    await assert_idle(bench)


async def test_limits_are_told(bench: Bench) -> None:
    limits = (await bench.inference.GetModel(pb.GetModelRequest())).limits
    assert (limits.resume_ttl.ToSeconds(), limits.resume_tokens) == (300, 16384)


async def test_shutdown_leaves_no_answer(bench: Bench) -> None:
    await lost(bench, resumable())
    await bench.coordinator.stop()
    assert not len(bench.coordinator.answers)
