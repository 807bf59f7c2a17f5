"""Pins, drains and plans over the wire, with stages that obey or do not."""

from __future__ import annotations

import asyncio
import logging

import grpc
import pytest

from coordinator.policy.pieces import ALL_PIECES, Piece
from coordinator.policy.plan import Assignment, Plan
from core.access import token_metadata
from core.stages import Stage
from elasticmm.v1 import admin_pb2, admin_pb2_grpc
from elasticmm.v1 import inference_pb2 as pb
from elasticmm.v1 import stage_control_pb2 as stages
from tests.coordinator.conftest import TOKEN, Bench, MakeBench, failure_of

SHARED, TEXT = stages.MODALITY_GROUP_SHARED, stages.MODALITY_GROUP_TEXT
E, P, D = pb.STAGE_ENCODE, pb.STAGE_PREFILL, pb.STAGE_DECODE


class Admin:
    """The admin's side of one bench."""

    def __init__(self, bench: Bench) -> None:
        self._stub = admin_pb2_grpc.AdminStub(bench.channel)

    async def plan(self) -> dict[str, admin_pb2.PlannedInstance]:
        reply = await self._stub.GetPlan(admin_pb2.GetPlanRequest(), metadata=token_metadata(TOKEN))
        return {each.instance_id: each for each in reply.instances}

    async def pin(self, name: str, roles: list[int], group: int = 0) -> None:
        request = admin_pb2.PinRequest(instance_id=name, roles=roles, group=group)
        await self._stub.Pin(request, metadata=token_metadata(TOKEN))

    async def unpin(self, name: str) -> None:
        await self._stub.Unpin(admin_pb2.UnpinRequest(instance_id=name), metadata=token_metadata(TOKEN))

    async def drain(self, name: str) -> None:
        await self._stub.Drain(admin_pb2.DrainRequest(instance_id=name), metadata=token_metadata(TOKEN))

    async def resume(self, name: str) -> None:
        await self._stub.Resume(admin_pb2.ResumeRequest(instance_id=name), metadata=token_metadata(TOKEN))

    async def past(self) -> list[admin_pb2.PastTransition]:
        reply = await self._stub.GetPlan(admin_pb2.GetPlanRequest(), metadata=token_metadata(TOKEN))
        return list(reply.past)

    async def why(self, subject: str = "", **more: bool) -> list[admin_pb2.Decision]:
        request = admin_pb2.WhyRequest(subject=subject, **more)
        return list((await self._stub.Why(request, metadata=token_metadata(TOKEN))).decisions)

    async def until_state(self, name: str, state: str) -> admin_pb2.PlannedInstance:
        async with asyncio.timeout(60):
            while True:
                planned = (await self.plan())[name]
                if planned.state.startswith(state):
                    return planned
                await asyncio.sleep(0.01)


async def test_a_pinned_instance_plays_other_stages(make_bench: MakeBench) -> None:
    bench = await make_bench("epd", "d")
    admin = Admin(bench)
    await admin.pin("d0", [P], stages.MODALITY_GROUP_TEXT)
    planned = await admin.until_state("d0", "serving")
    assert list(planned.present.roles) == [P]
    assert planned.present.group == stages.MODALITY_GROUP_TEXT
    assert planned.is_pinned
    assert bench.coordinator.live.books.instances["d0"].is_open
    (past,) = await admin.past()
    assert (past.instance_id, list(past.after.roles), past.is_done) == ("d0", [P], True)
    await admin.unpin("d0")
    assert not (await admin.plan())["d0"].is_pinned
    await bench.assert_idle()


async def test_an_instance_that_does_not_answer_goes_back(make_bench: MakeBench) -> None:
    bench = await make_bench("epd", "d", transition_deadline_s=0.05)
    bench.stages[1].obeys = False
    admin = Admin(bench)
    await admin.pin("d0", [P])
    await admin.until_state("d0", "returning")
    bench.stages[1].obeys = True
    await admin.unpin("d0")
    planned = await admin.until_state("d0", "serving")
    assert list(planned.present.roles) == [D]
    assert "switching took over" in planned.last_failure
    await bench.assert_idle()


async def test_a_decoding_sequence_leaves_a_drained_instance(make_bench: MakeBench) -> None:
    bench = await make_bench("ep", "d", "d")
    for stage in bench.stages[1:]:
        stage.pause_at = 3
    admin = Admin(bench)
    asking = asyncio.create_task(bench.ask(max_tokens=6, seed=1))
    await bench.until(lambda: any(stage.made.values() for stage in bench.stages[1:]))
    busy = next(stage for stage in bench.stages[1:] if stage.jobs)
    (request,) = bench.coordinator.dispatcher.requests()
    await bench.until(lambda: request.is_decoding)
    draining = asyncio.create_task(admin.drain(busy.name))
    await bench.until(lambda: request.num_moves)  # resumed before, the source may end the answer first
    for stage in bench.stages:
        stage.resume()
    await draining
    assert len((await asking).token_ids) == 6
    assert request.num_moves == 1
    assert (await admin.plan())[busy.name].state == "drained"
    await bench.ask(max_tokens=2)
    await admin.resume(busy.name)
    assert (await admin.plan())[busy.name].state == "serving"
    await bench.assert_idle()


async def test_a_drain_waits_for_a_switch_that_leaves_no_other_open(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = await make_bench("e", "pd", "pd")
    admin, switching = Admin(bench), bench.stages[1]
    switching.obeys = False
    await admin.pin("pd0", [E, P, D])
    await admin.until_state("pd0", "switching")
    asked: list[bool] = []
    must_stay_open = bench.coordinator.planner._reconciler.must_stay_open
    monkeypatch.setattr(
        bench.coordinator.planner._reconciler,
        "must_stay_open",
        lambda name: asked.append(must_stay_open(name)) or asked[-1],
    )
    draining = asyncio.create_task(admin.drain("pd1"))
    await bench.until(lambda: True in asked)
    assert bench.coordinator.live.books.instances["pd1"].is_open
    switching.obeys = True
    switching.report(stages.StageMessage(heartbeat=stages.Heartbeat(roles=[E, P, D], group=SHARED)))
    await draining
    assert (await admin.plan())["pd1"].state == "drained"
    assert (await admin.plan())["pd0"].state == "serving"
    await bench.assert_idle()


@pytest.mark.parametrize(
    ("verb", "arguments", "words"),
    [
        (
            "pin",
            ("epd0", [D]),
            "epd0 cannot be pinned to shared:d: nobody would play prefill for text requests",
        ),
        (
            "pin",
            ("epd0", [P, D]),
            "epd0 cannot be pinned to shared:pd: nobody would play encode for multimodal requests",
        ),
        (
            "pin",
            ("epd0", [], TEXT),
            "epd0 cannot be pinned to text:epd: "
            "nobody would play encode, prefill or decode for multimodal requests",
        ),
        (
            "pin",
            ("epd0", [P], TEXT),
            "epd0 cannot be pinned to text:p: nobody would play decode for text requests",
        ),
        ("drain", ("epd0",), "epd0 cannot be drained: nobody would play prefill or decode for text requests"),
    ],
)
async def test_what_would_leave_a_stage_to_nobody_is_refused(
    make_bench: MakeBench, verb: str, arguments: tuple[object, ...], words: str
) -> None:
    bench = await make_bench("epd")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(Admin(bench), verb)(*arguments)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.details() == words
    planned = (await Admin(bench).plan())["epd0"]
    assert (planned.state, planned.is_pinned, planned.is_drained) == ("serving", False, False)
    await bench.assert_idle()


@pytest.mark.parametrize("verb", ["pin", "unpin", "drain", "resume"])
async def test_an_unknown_instance_is_named(make_bench: MakeBench, verb: str) -> None:
    bench = await make_bench("epd")
    arguments = ("x", [D]) if verb == "pin" else ("x",)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(Admin(bench), verb)(*arguments)
    assert failure_of(caught.value).field == "instance_id"
    assert "no instance 'x' is attached (there: epd0)" in (caught.value.details() or "")
    await bench.assert_idle()


async def test_a_plan_that_would_leave_a_stage_to_nobody_is_not_carried_out(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench = await make_bench("epd", "d")
    lacking = Plan(7, {"epd0": Assignment(frozenset({Stage.PREFILL}))})
    monkeypatch.setattr(bench.coordinator.scheduler, "plan", lambda *_: lacking)
    await bench.until(
        lambda: "plan 7 is not carried out: nobody would play encode for multimodal requests" in caplog.text
    )
    assert list((await Admin(bench).plan())["epd0"].present.roles) == [E, P, D]
    await bench.assert_idle()


async def test_decisions_say_why(make_bench: MakeBench) -> None:
    bench = await make_bench("epd")
    answer = await bench.ask(max_tokens=2, request_id="mine")
    assert answer.finished
    (decision,) = await Admin(bench).why("mine")
    assert decision.piece == "dispatch"
    assert "epd0" in decision.choice
    assert decision.numbers["first_token_in_s"] > 0
    assert await Admin(bench).why("other") == []
    await Admin(bench).pin("epd0", [E, P, D])
    bench.coordinator.planner.tick()
    ordered, decision = await Admin(bench).why(without_dispatches=True)
    assert (ordered.piece, ordered.subject, ordered.choice) == ("admin", "epd0", "pinned to shared:epd")
    assert (decision.piece, decision.subject, decision.choice) == ("layout", "cluster", "wants 1xshared:epd")


async def test_orders_of_admins_are_decisions_told_once_and_logged(
    make_bench: MakeBench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "coordinator.decision_log")
    bench = await make_bench("epd", "epd")
    admin = Admin(bench)
    await admin.pin("epd1", [P, D])
    await admin.until_state("epd1", "serving")
    for _ in range(2):
        await admin.unpin("epd1")
    for _ in range(2):
        await admin.drain("epd1")
    for _ in range(2):
        await admin.resume("epd1")
    said = [
        "pinned to shared:pd",
        "left to the policies again",
        "drained: gets no more work",
        "takes work again",
    ]
    assert [each.choice for each in await admin.why("epd1")] == said
    logged = [each for each in caplog.records if "admin: epd1" in each.getMessage()]
    assert [each.getMessage() for each in logged] == [f"admin: epd1 {choice}" for choice in said]
    assert all(vars(each)["instance_id"] == "epd1" for each in logged)
    await bench.ask(max_tokens=1)
    assert not any(each.getMessage().startswith("dispatch") for each in caplog.records)
    caplog.set_level(logging.DEBUG, "coordinator.decision_log")
    await bench.ask(max_tokens=1, request_id="mine")
    (dispatch,) = (each for each in caplog.records if each.getMessage().startswith("dispatch: mine"))
    assert vars(dispatch)["request_id"] == "mine"
    assert "first_token_in_s" in dispatch.getMessage()


async def test_a_lost_instance_is_forgotten(make_bench: MakeBench) -> None:
    bench = await make_bench("epd", "d")
    admin = Admin(bench)
    bench.stages[1].obeys = False
    await admin.pin("d0", [P])
    await admin.until_state("d0", "switching")
    await bench.stages[1].crash()
    await bench.until(lambda: len(bench.coordinator.registry) == 1)
    assert list(await admin.plan()) == ["epd0"]
    bench.coordinator.planner._reconciler.check_integrity()
    await bench.assert_idle()


async def test_a_tick_that_fails_does_not_end_planning(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench = await make_bench("epd", "d")
    scheduler = bench.coordinator.scheduler
    plan, calls = scheduler.plan, []

    def fail_once(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 1:
            raise RuntimeError("no plan")
        return plan(*arguments)

    monkeypatch.setattr(scheduler, "plan", fail_once)
    await bench.until(lambda: len(calls) > 1)
    assert "a planning tick failed" in caplog.text
    await bench.assert_idle()


async def test_pieces_of_emp_that_are_off_are_not_used(make_bench: MakeBench) -> None:
    bench = await make_bench("epd", "epd", policy="emp", without=("search", "hysteresis"))
    pieces = bench.coordinator.scheduler.main._reshaper._pieces
    assert pieces == ALL_PIECES - {Piece.SEARCH, Piece.HYSTERESIS}
    await bench.assert_idle()
