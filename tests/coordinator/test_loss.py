"""Instances die and stages fail: requests go on elsewhere, no index missing or twice."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest

from elasticmm.v1 import inference_pb2 as pb
from elasticmm.v1 import stage_control_pb2
from tests.coordinator.conftest import Answer, Bench, MakeBench, picture
from tests.coordinator.fake_stage import FakeStage, Key, fake_token, prompt_of


async def paused(bench: Bench, at: int, **fields: object) -> asyncio.Task[Answer]:
    """A request that all present decoders leave at this index."""
    for stage in bench.stages:
        stage.pause_at = at
    asking = asyncio.create_task(bench.ask(max_tokens=20, seed=4, **fields))
    dispatcher = bench.coordinator.dispatcher
    await bench.until(lambda: any(r.num_outputs >= at for r in dispatcher.requests()))
    for stage in bench.stages:
        stage.pause_at = None
    return asking


def holder(bench: Bench, kind: str) -> FakeStage:
    return next(stage for stage in bench.stages if kind in stage.kinds())


@pytest.mark.parametrize("roles", [("epd", "epd"), ("e", "p", "d", "d"), ("ep", "pd", "d")], ids="+".join)
async def test_the_decoder_dies_mid_stream(make_bench: MakeBench, roles: tuple[str, ...]) -> None:
    bench = await make_bench(*roles)
    asking = await paused(bench, at=7)
    lost = next(stage for stage in bench.stages if stage.jobs)
    await lost.crash()
    bench.stages.remove(lost)
    answer = await asking
    assert answer.token_ids == [fake_token(4, index) for index in range(20)]
    again = [c.prefill.sequence for stage in bench.stages for c in stage.commands if c.HasField("prefill")][
        -1
    ]
    assert list(again.output_token_ids) == answer.token_ids[:7]
    await bench.assert_idle()


async def test_the_first_dispatch_and_the_second_have_the_same_prompt(make_bench: MakeBench) -> None:
    bench = await make_bench("p", "d", "d", "e")
    asking = await paused(bench, at=2)
    lost = next(stage for stage in bench.stages if stage.jobs)
    await lost.crash()
    bench.stages.remove(lost)
    await asking
    first, second = [c.prefill.sequence for c in bench.stages[0].commands if c.HasField("prefill")]
    assert prompt_of(first) == prompt_of(second)
    assert first.attempt != second.attempt
    await bench.assert_idle()


async def test_the_encoder_dies_before_it_delivered(make_bench: MakeBench) -> None:
    bench = await make_bench("p", "d", gateway=True)
    (encoder,) = await bench.add("e")
    encoder.failure = hang
    asking = asyncio.create_task(bench.ask(images=(pb.ImagePart(data=picture()),), max_tokens=4))
    await bench.until(lambda: "encode" in encoder.kinds())
    await bench.add("e")
    await encoder.crash()
    bench.stages.remove(encoder)
    assert len((await asking).token_ids) == 4
    await bench.assert_idle()


def hang(_kind: str, _key: Key) -> stage_control_pb2.FailureReport:
    """No failure, and no answer either: the report names no request."""
    return stage_control_pb2.FailureReport(request_id="nobody's")


async def test_prefill_and_encode_may_go_once_they_are_done(make_bench: MakeBench) -> None:
    bench = await make_bench("e", "p", "d", gateway=True)
    asking = await paused(bench, at=5, images=(pb.ImagePart(data=picture()),))
    *others, decoder = bench.stages
    for stage in others:
        await stage.crash()
    bench.stages = [decoder]
    assert asking.done() is False
    (request,) = bench.coordinator.dispatcher.requests()
    assert request.num_attempts == 1
    asking.cancel()


async def test_silence_is_a_loss(make_bench: MakeBench) -> None:
    bench = await make_bench("epd", heartbeat_interval_s=0.05, heartbeat_timeout_s=0.8)
    asking = await paused(bench, at=3)
    await bench.until(lambda: bench.coordinator.cluster.num_instances == 0)
    await bench.add("epd")
    answer = await asking
    assert answer.token_ids == [fake_token(4, index) for index in range(20)]


async def test_a_coordinator_that_stood_still_blames_nobody(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = await make_bench("epd", heartbeat_interval_s=0.05, heartbeat_timeout_s=0.8)
    cluster, watched = bench.coordinator.cluster, []
    watch = cluster.watch
    monkeypatch.setattr(cluster, "watch", lambda: watched.append(watch()))
    time.sleep(1.0)  # noqa: ASYNC251 - the coordinator is on this loop
    await bench.until(lambda: watched)
    assert cluster.num_instances == 1


async def test_at_most_two_more_attempts(make_bench: MakeBench) -> None:
    bench = await make_bench("epd")
    asking = asyncio.create_task(bench.fail(max_tokens=9))
    for _ in range(3):
        (stage,) = bench.stages
        stage.pause_at = 2
        await bench.until(lambda stage=stage: "prefill" in stage.kinds())
        await stage.crash()
        bench.stages.clear()
        if not asking.done():
            (again,) = await bench.add("epd")
            again.pause_at = 2
    failure = await asking
    assert failure.code is grpc.StatusCode.UNAVAILABLE
    assert "was lost" in failure.message
    bench.stages[0].pause_at = None
    await bench.assert_idle()


async def test_waiting_in_vain_for_a_stage(make_bench: MakeBench) -> None:
    bench = await make_bench(
        "ep", "d", instance_wait_s=0.1, heartbeat_interval_s=0.05, heartbeat_timeout_s=60
    )
    for stage in bench.stages:
        stage.pause_at = 3
    asking = asyncio.create_task(bench.fail(max_tokens=20))
    decoder = bench.stages.pop()
    await bench.until(lambda: decoder.jobs)
    await decoder.crash()
    failure = await asking
    assert failure.code is grpc.StatusCode.UNAVAILABLE
    assert "DECODE" in failure.message
    assert decoder.name in failure.message
    await bench.add("d")
    await bench.assert_idle()


def failing(times: int, kind: str, **fields: object):
    left = [times]

    def fail(present: str, key: Key) -> stage_control_pb2.FailureReport | None:
        if present != kind or not left[0]:
            return None
        left[0] -= 1
        return stage_control_pb2.FailureReport(request_id=key[0], attempt=key[1], message="trouble", **fields)

    return fail


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED])
async def test_a_failure_that_may_pass_is_tried_again(bench: Bench, code: grpc.StatusCode) -> None:
    bench.stages[1].failure = failing(1, "prefill", stage=pb.STAGE_PREFILL, code=code.value[0])
    answer = await bench.ask(max_tokens=6, seed=9)
    assert answer.token_ids == [fake_token(9, index) for index in range(6)]
    await bench.assert_idle()


async def test_a_failure_that_would_not_pass(bench: Bench) -> None:
    bench.stages[1].failure = failing(1, "prefill", stage=pb.STAGE_PREFILL, code=13)
    failure = await bench.fail()
    assert failure.code is grpc.StatusCode.INTERNAL
    assert "trouble" in failure.message
    await bench.assert_idle()


async def test_a_picture_that_the_encoder_cannot_read(make_bench: MakeBench) -> None:
    bench = await make_bench("e", "p", "d", gateway=True)
    other = asyncio.create_task(bench.ask(images=(pb.ImagePart(data=picture("BMP")),), max_tokens=9))
    await other
    bench.stages[0].failure = failing(1, "encode", stage=pb.STAGE_ENCODE, code=3, item_index=0, field="image")
    failure = await bench.fail(images=(pb.ImagePart(data=picture()),))
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.field == "messages[0].parts[0].image"
    assert "trouble" in failure.message
    await bench.assert_idle()


async def test_messages_of_older_attempts_are_dropped(make_bench: MakeBench) -> None:
    bench = await make_bench("epd", "epd")
    asking = await paused(bench, at=5)
    lost = next(stage for stage in bench.stages if stage.jobs)
    other = next(stage for stage in bench.stages if stage is not lost)
    old = next(c.prefill.sequence for c in lost.commands if c.HasField("prefill"))
    other.pause_at = 9
    await lost.crash()
    bench.stages.remove(lost)
    await bench.until(lambda: "prefill" in other.kinds())
    stray = stage_control_pb2.SequenceTokens(
        request_id=old.request_id, attempt=old.attempt, first_index=9, token_ids=[1]
    )
    other.report(stage_control_pb2.StageMessage(step=stage_control_pb2.StepReport(sequences=[stray])))
    other.resume()
    answer = await asking
    assert answer.token_ids == [fake_token(4, index) for index in range(20)]


async def test_too_large_for_what_is_left(make_bench: MakeBench) -> None:
    bench = await make_bench("e", instance_wait_s=0.1, heartbeat_interval_s=0.05, heartbeat_timeout_s=60)
    (large,) = await bench.add("pd", blocks=50)
    await bench.add("pd", blocks=8)
    bench.stages[1].pause_at = 3
    asking = asyncio.create_task(bench.fail(max_tokens=400))
    await bench.until(lambda: large.jobs)
    bench.stages.remove(large)
    await large.crash()
    failure = await asking
    assert failure.code is grpc.StatusCode.UNAVAILABLE
    assert "large enough" in failure.message
    assert large.name in failure.message
    await bench.assert_idle()
