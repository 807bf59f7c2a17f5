"""Using a request id again, and what the transport takes."""

from __future__ import annotations

import grpc

from elasticmm.v1 import inference_pb2 as pb
from tests.coordinator.conftest import Bench, MakeBench, ask_for
from tests.coordinator.test_ending import running
from tests.coordinator.test_resume import assert_idle, go_on, lost, resumable, resume

EXISTS = (grpc.StatusCode.ALREADY_EXISTS, "request_id")


async def test_while_it_runs(bench: Bench) -> None:
    call = await running(bench, request_id="r")
    failure = await bench.fail(request_id="r")
    assert (failure.code, failure.field) == EXISTS
    call.cancel()
    await bench.assert_idle()


async def test_after_its_end_it_runs_again(bench: Bench) -> None:
    first, second = [await bench.ask(request_id="r", max_tokens=9, seed=4) for _ in range(2)]
    assert (first.token_ids, first.text) == (second.token_ids, second.text)
    assert bench.stages[1].kinds().count("prefill") == 2
    await bench.assert_idle()


async def test_after_a_failure_it_runs_again(bench: Bench) -> None:
    bench.stages[2].pause_at = 3
    assert (await bench.fail(request_id="r", deadline_s=0.1)).code is grpc.StatusCode.DEADLINE_EXCEEDED
    bench.stages[2].pause_at = None
    assert (await bench.ask(request_id="r", max_tokens=9)).finished
    await bench.assert_idle()


async def test_a_kept_answer_holds_its_id(bench: Bench) -> None:
    await lost(bench, resumable())
    failure = await bench.fail(resumable())
    assert (failure.code, failure.field) == EXISTS
    go_on(bench)
    assert len((await resume(bench, 0)).tokens) > 0
    failure = await bench.fail(request_id="r")  # whether the new one is resumable or not
    assert (failure.code, failure.field) == EXISTS
    await bench.inference.Cancel(pb.CancelRequest(request_id="r"))
    assert (await bench.ask(request_id="r", max_tokens=9)).finished
    await assert_idle(bench)


async def test_a_failed_resumable_request_may_be_tried_again(bench: Bench) -> None:
    await lost(bench, resumable(deadline_s=0.2))
    await bench.until(lambda: not bench.num_requests)
    go_on(bench)
    assert (await bench.ask(resumable())).finished
    await assert_idle(bench)


async def test_an_id_of_an_unresumable_one_is_refused_to_a_resumable_one(bench: Bench) -> None:
    call = await running(bench, request_id="r")
    failure = await bench.fail(resumable())
    assert (failure.code, failure.field) == EXISTS
    assert not len(bench.coordinator.answers)
    call.cancel()
    await bench.assert_idle()


async def test_compressed_calls_are_taken_and_their_size_counts_unpacked(make_bench: MakeBench) -> None:
    bench = await make_bench("epd", message_bytes=1000)
    async with grpc.aio.insecure_channel(bench.address, compression=grpc.Compression.Gzip) as channel:
        inference = type(bench.inference)(channel)
        events = [event async for event in inference.Generate(ask_for(text="a" * 900, max_tokens=2))]
        assert events[-1].HasField("finished")
        call = inference.Generate(ask_for(text="a" * 1000, max_tokens=2))
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await call.details() or "").startswith("messages: message of 1")
    await bench.assert_idle()
