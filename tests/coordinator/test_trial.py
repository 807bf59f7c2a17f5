"""An experiment on a whole coordinator with fake stages."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from coordinator.policy.seat import Arm
from coordinator.policy.trials.shares import TrialWish, home_of
from elasticmm.v1 import admin_pb2
from elasticmm.v1 import inference_pb2 as pb
from tests.coordinator.conftest import Answer, Bench, MakeBench, failure_of
from tests.coordinator.test_shadow import call
from tests.coordinator.test_watch import samples


def start(policy: str = "coupled", **more: object) -> admin_pb2.StartTrialRequest:
    return admin_pb2.StartTrialRequest(policy=policy, experiment="x", **more)


async def report_of(bench: Bench) -> admin_pb2.TrialReport:
    return await call(bench, "GetTrial", admin_pb2.GetTrialRequest())


def players(answer: Answer) -> set[str]:
    assert answer.finished is not None
    return {span.instance_id for span in answer.finished.stages}


async def test_requests_run_in_both_arms_and_each_stays_in_its_own(make_bench: MakeBench) -> None:
    bench = await make_bench("epd", "epd", "epd", "epd", policy="emp")
    await call(bench, "StartTrial", start())
    answers = [await bench.ask(text=f"question {number}", max_tokens=3) for number in range(12)]
    report = await report_of(bench)
    owners = {name: arm.arm for arm in report.arms for name in arm.instance_ids}
    assert sorted(owners.values()) == ["a", "a", "b", "b"]
    arms = [{owners[name] for name in players(answer)} for answer in answers]
    assert all(len(each) == 1 for each in arms)
    counts = [arm.good + arm.late + arm.slow for arm in report.arms]
    assert counts == [arms.count({"a"}), arms.count({"b"})]
    assert min(counts) > 0
    plan = await call(bench, "GetPlan", admin_pb2.GetPlanRequest())
    assert {each.instance_id: each.arm for each in plan.instances} == owners
    instances = samples(bench.coordinator, "arm_instances")
    assert (instances["a",], instances["b",]) == (2, 2)
    assert samples(bench.coordinator, "arm_requests_total")["b", "crossed"] == 0
    slo = await call(bench, "GetSloReport", admin_pb2.GetSloReportRequest())
    assert [arm.policy for arm in slo.trial.arms] == ["emp", "coupled"]
    await bench.assert_idle()


async def test_turns_of_a_chat_stay_in_one_arm(make_bench: MakeBench) -> None:
    bench = await make_bench("epd", "epd", policy="emp", trial=TrialWish("coupled"))
    request = pb.GenerateRequest(sampling=pb.SamplingParams(max_tokens=2))
    used = set()
    for number in range(6):
        role = "assistant" if number % 2 else "user"
        request.messages.add(role=role, parts=[pb.Part(text=f"turn {number}")])
        if role == "user":
            used |= players(await bench.ask(request))
    assert len(used) == 1


def text_of(arm: Arm, bench: Bench) -> str:
    """A question that belongs to that arm, of equal shares."""
    from coordinator.calls import ChatMessage, ChatPart, GenerateCall
    from coordinator.conversations import conversation_of

    for number in range(100):
        words = f"question {number}"
        message = ChatMessage("user", (ChatPart(text=words),))
        if home_of("x", conversation_of(GenerateCall(messages=(message,), tenant="default")), 0.5) is arm:
            return words
    raise AssertionError(bench)


async def test_the_only_instance_of_an_arm_dies_and_its_requests_cross_over(make_bench: MakeBench) -> None:
    bench = await make_bench("epd", "epd", policy="emp")
    await call(bench, "StartTrial", start())
    (own,) = (await report_of(bench)).arms[1].instance_ids
    victim = next(stage for stage in bench.stages if stage.name == own)
    victim.pause_at = 3
    asking = asyncio.create_task(bench.ask(text=text_of(Arm.B, bench), max_tokens=8, seed=4))
    await bench.until(lambda: victim.jobs)
    await bench.until(lambda: any(r.num_outputs >= 3 for r in bench.coordinator.dispatcher.requests()))
    await victim.crash()
    answer = await asking
    assert len(answer.token_ids) == 8
    later = await bench.ask(text=text_of(Arm.B, bench), max_tokens=3)
    assert own not in players(later)
    report = await report_of(bench)
    assert (report.arms[1].crossed, report.arms[0].crossed) == (2, 0)
    assert [arm.good + arm.late for arm in report.arms] == [0, 0]
    await bench.add("epd")
    back = await bench.ask(text=text_of(Arm.B, bench), max_tokens=3)
    assert players(back) == set((await report_of(bench)).arms[1].instance_ids)
    bench.stages.remove(victim)
    await bench.assert_idle()


async def test_starting_and_stopping_under_load_loses_nothing(make_bench: MakeBench) -> None:
    bench = await make_bench("epd", "epd", "epd", policy="emp")
    undisturbed = await bench.ask(text="what?", max_tokens=40, seed=9)
    asking = [
        asyncio.create_task(bench.ask(text="what?", max_tokens=40, seed=9, request_id=f"r{number}"))
        for number in range(30)
    ]
    for policy in ("coupled", "replicas", "static:equal", "fixed"):
        await call(bench, "StartTrial", start(policy, share=0.4))
        await bench.until(lambda: bench.coordinator.dispatcher.num_running or all(t.done() for t in asking))
        bench.coordinator.scheduler.trial.check_integrity()
        await call(bench, "StopTrial", admin_pb2.StopTrialRequest())
    for answer in await asyncio.gather(*asking):
        assert answer.token_ids == undisturbed.token_ids
    assert {book.arm for book in bench.coordinator.live.books.instances.values()} == {None}
    await bench.assert_idle()


async def test_a_request_is_not_moved_to_the_other_arm(make_bench: MakeBench) -> None:
    bench = await make_bench("epd", "epd", policy="emp", trial=TrialWish("coupled"))
    for stage in bench.stages:
        stage.pause_at = 4
    asking = asyncio.create_task(bench.ask(text="x", request_id="r", max_tokens=6))
    await bench.until(lambda: any(r.is_decoding for r in bench.coordinator.dispatcher.requests()))
    (request,) = bench.coordinator.dispatcher.requests()
    (other,) = {"epd0", "epd1"} - request.instance_ids
    for target, reason in ((other, "in the other arm"), ("", "no other decode instance has room")):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(bench, "Migrate", admin_pb2.MigrateRequest(request_id="r", instance_id=target))
        assert reason in failure_of(caught.value).message
    for stage in bench.stages:
        stage.resume()
    await asking
    await bench.assert_idle()


async def test_an_instance_that_its_arm_needs_is_not_drained(make_bench: MakeBench) -> None:
    bench = await make_bench("epd", "epd", policy="emp", trial=TrialWish("coupled"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(bench, "Drain", admin_pb2.DrainRequest(instance_id="epd1"))
    assert failure_of(caught.value).code is grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize(
    ("roles", "method", "request_", "code", "reason"),
    [
        (["epd"], "StartTrial", start(), "FAILED_PRECONDITION", "one instance cannot be divided"),
        (["epd", "epd"], "StartTrial", start("x"), "INVALID_ARGUMENT", "policy: 'x' is not one of"),
        (["epd", "epd"], "StartTrial", start(share=0), "INVALID_ARGUMENT", "share: 0 is not between"),
        (["e", "p", "d"], "StartTrial", start(), "FAILED_PRECONDITION", "would have nobody to play"),
        (["epd"], "GetTrial", admin_pb2.GetTrialRequest(), "FAILED_PRECONDITION", "no experiment runs"),
        (["epd"], "StopTrial", admin_pb2.StopTrialRequest(), "FAILED_PRECONDITION", "no experiment runs"),
    ],
)
async def test_refusals(
    make_bench: MakeBench, roles: list[str], method: str, request_: object, code: str, reason: str
) -> None:
    bench = await make_bench(*roles)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(bench, method, request_)
    failure = failure_of(caught.value)
    assert (failure.code.name, reason in failure.message) == (code, True)
    await bench.assert_idle()


async def test_there_is_one_at_a_time(make_bench: MakeBench) -> None:
    bench = await make_bench("epd", "epd", shadow="emp")
    with pytest.raises(grpc.aio.AioRpcError, match="emp is in the shadow already"):
        await call(bench, "StartTrial", start())
    await call(bench, "StopShadow", admin_pb2.StopShadowRequest())
    await call(bench, "StartTrial", start())
    for method, request in (
        ("StartTrial", start()),
        ("StartShadow", admin_pb2.StartShadowRequest(policy="emp")),
    ):
        with pytest.raises(grpc.aio.AioRpcError, match="the experiment x runs"):
            await call(bench, method, request)
    with pytest.raises(ValueError, match="ab, shadow"):
        await make_bench("epd", shadow="emp", trial=TrialWish("emp"))
