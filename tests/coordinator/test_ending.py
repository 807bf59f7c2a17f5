"""Cancel, disconnect, deadline and slow readers: the work stops and nothing is held."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from elasticmm.v1 import inference_pb2 as pb
from tests.coordinator.conftest import Bench, MakeBench, ask_for, picture


async def running(bench: Bench, **fields: object) -> grpc.aio.UnaryStreamCall:
    """A call that decodes and then waits for ever."""
    for stage in bench.stages:
        stage.pause_at = 3
    call = bench.inference.Generate(ask_for(max_tokens=50, **fields))
    num_tokens = 0
    while num_tokens < 3:
        event = await call.read()
        num_tokens += len(event.tokens.token_ids)
    for stage in bench.stages:
        stage.pause_at = None
    return call


async def end_of(call: grpc.aio.UnaryStreamCall) -> grpc.StatusCode:
    """Reads all that is left."""
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    return await call.code()


async def test_cancel_reaches_every_stage(bench: Bench) -> None:
    *_, decode = bench.stages
    call = await running(bench)
    assert decode.jobs
    call.cancel()
    await bench.until(lambda: "cancel" in decode.kinds())
    await bench.assert_idle()


async def test_a_client_that_vanishes(bench: Bench) -> None:
    channel = grpc.aio.insecure_channel(bench.address)
    own = bench.inference
    bench.inference = type(own)(channel)
    await running(bench)
    await channel.close()
    bench.inference = own
    await bench.until(lambda: not bench.num_requests)
    await bench.assert_idle()


async def test_cancel_while_waiting(make_bench: MakeBench) -> None:
    bench = await make_bench()
    (stage,) = await bench.add("epd", blocks=8)
    first = await running(bench)
    second = bench.inference.Generate(ask_for(max_tokens=100))
    await bench.until(lambda: bench.coordinator.dispatcher.num_waiting == 1)
    second.cancel()
    await bench.until(lambda: bench.coordinator.dispatcher.num_waiting == 0)
    assert stage.kinds().count("prefill") == 1
    first.cancel()
    await bench.assert_idle()


async def test_own_deadline(bench: Bench) -> None:
    bench.stages[2].pause_at = 3
    failure = await bench.fail(max_tokens=50, deadline_s=0.2)
    assert failure.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "deadline of 0.2 s" in failure.message
    bench.stages[2].pause_at = None
    await bench.assert_idle()


async def test_the_calls_deadline(bench: Bench) -> None:
    bench.stages[2].pause_at = 3
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in bench.inference.Generate(ask_for(max_tokens=50), timeout=0.2):
            pass
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    bench.stages[2].pause_at = None
    await bench.assert_idle()


async def test_media_leases_end_with_the_request(make_bench: MakeBench) -> None:
    bench = await make_bench("e", "p", "d", gateway=True)
    call = await running(bench, images=(pb.ImagePart(data=picture()),))
    assert bench.gateway.store.num_leases == 1
    call.cancel()
    await bench.until(lambda: bench.gateway.store.num_leases == 0)
    await bench.assert_idle()


async def test_a_stalled_reader_is_dropped(make_bench: MakeBench, caplog: pytest.LogCaptureFixture) -> None:
    bench = await make_bench("epd", stalled_reader_s=0.3)
    small_window = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65535))
    async with grpc.aio.insecure_channel(bench.address, options=small_window) as channel:
        call = type(bench.inference)(channel).Generate(ask_for(max_tokens=2000, logprobs=20))
        await call.read()
        await bench.until(lambda: not bench.coordinator.door.num_open)
        assert await end_of(call) is grpc.StatusCode.ABORTED
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    await bench.assert_idle()


async def test_shutdown_ends_requests_and_instances(bench: Bench) -> None:
    call = await running(bench)
    stopping = asyncio.create_task(bench.coordinator.stop())
    assert await end_of(call) is grpc.StatusCode.UNAVAILABLE
    await bench.until(lambda: all("stop" in stage.kinds() for stage in bench.stages))
    await stopping
