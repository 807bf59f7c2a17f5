"""Bounded queues: refused with a time to come back, and never dropped silently."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from elasticmm.v1 import inference_pb2 as pb
from elasticmm_client import AsyncClient, Overloaded
from tests.coordinator.conftest import Bench, MakeBench, ask_for


async def fill(bench: Bench, count: int) -> list[grpc.aio.UnaryStreamCall]:
    """So many requests of which one decodes for ever and the others wait for its blocks."""
    (stage,) = await bench.add("epd", blocks=8)
    stage.pause_at = 1
    calls = []
    for _ in range(count):
        calls.append(bench.inference.Generate(ask_for(max_tokens=100)))
        await bench.until(lambda: bench.num_requests == len(calls))
    return calls


async def test_a_full_queue(make_bench: MakeBench) -> None:
    bench = await make_bench(max_waiting=2)
    calls = await fill(bench, 3)
    failure = await bench.fail()
    assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (failure.retry_after_s, failure.quota) == (1.0, "max_waiting")
    with pytest.raises(Overloaded) as caught:
        async with AsyncClient(bench.address) as client:
            await client.generate("hi").result()
    assert (caught.value.retry_after_s, caught.value.quota) == (1.0, "max_waiting")
    bench.stages[0].pause_at = None
    calls[0].cancel()
    for call in calls[1:]:
        events = [event async for event in call]
        assert events[-1].HasField("finished")
    await bench.assert_idle()


async def test_blocks_are_not_promised_twice(make_bench: MakeBench) -> None:
    bench = await make_bench()
    calls = await fill(bench, 3)
    assert bench.stages[0].kinds().count("prefill") == 1
    (book,) = bench.coordinator.dispatcher.books.instances.values()
    assert 0 < book.load.kv_blocks <= book.total_kv_blocks
    for call in calls:
        call.cancel()
    bench.stages[0].pause_at = None
    await bench.assert_idle()


async def test_nobody_plays_the_stage(make_bench: MakeBench) -> None:
    bench = await make_bench("p", "d")
    assert (await bench.ask(max_tokens=2)).finished
    failure = await bench.fail(images=(pb.ImagePart(digest=b"x" * 32),))
    assert failure.code is grpc.StatusCode.UNAVAILABLE
    assert "ENCODE" in failure.message
    assert failure.retry_after_s
    await bench.assert_idle()


async def test_no_gateway(bench: Bench) -> None:
    failure = await bench.fail(images=(pb.ImagePart(data=b"x"),))
    assert failure.code is grpc.StatusCode.UNAVAILABLE
    assert "media gateway" in failure.message
    await bench.assert_idle()


async def test_many_calls_at_one_moment_are_all_taken(bench: Bench) -> None:
    """gRPC's own limit of calls that have not begun would cancel some of them."""
    replies = await asyncio.gather(*(bench.inference.GetModel(pb.GetModelRequest()) for _ in range(4000)))
    assert len(replies) == 4000
