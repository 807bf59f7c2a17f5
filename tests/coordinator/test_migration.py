"""Decoding requests move between instances: who speaks for them, what is booked, and what trouble does."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from coordinator.request import Request
from core.access import token_metadata
from core.lifecycle import RequestState
from elasticmm.v1 import admin_pb2, admin_pb2_grpc, stage_control_pb2
from elasticmm.v1 import inference_pb2 as pb
from tests.coordinator.conftest import TOKEN, Answer, Bench, MakeBench, failure_of, picture
from tests.coordinator.fake_stage import FakeStage, fake_token

EXPECTED = [fake_token(4, index) for index in range(20)]


async def migrate(bench: Bench, request_id: str = "r", to: str = "") -> admin_pb2.MigrateResponse:
    stub = admin_pb2_grpc.AdminStub(bench.channel)
    request = admin_pb2.MigrateRequest(request_id=request_id, instance_id=to)
    return await stub.Migrate(request, metadata=token_metadata(TOKEN))


async def refused(bench: Bench, request_id: str = "r", to: str = "") -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await migrate(bench, request_id, to)
    failure = failure_of(caught.value)
    return failure.code, failure.message


class Case:
    """A request of 20 tokens that stands at token 7 on `source`; `target` would go on at once."""

    def __init__(self, bench: Bench, asking: asyncio.Task[Answer], source: FakeStage, target: FakeStage):
        self.bench = bench
        self.asking = asking
        self.source = source
        self.target = target

    @property
    def request(self) -> Request:
        (request,) = self.bench.coordinator.dispatcher.requests()
        return request

    def promised(self) -> dict[str, int]:
        books = self.bench.coordinator.dispatcher.books
        return {name: book.load.kv_blocks for name, book in books.instances.items()}

    def moving(self, to: str = "") -> asyncio.Task[admin_pb2.MigrateResponse]:
        return asyncio.create_task(migrate(self.bench, to=to))

    async def ends_well(self) -> Answer:
        answer = await self.asking
        assert answer.token_ids == EXPECTED
        await self.bench.assert_idle()
        return answer


async def standing(bench: Bench, **fields: object) -> Case:
    decoders = [stage for stage in bench.stages if "d" in stage.roles]
    for stage in decoders:
        stage.pause_at = 7
    asking = asyncio.create_task(bench.ask(request_id="r", max_tokens=20, seed=4, **fields))
    dispatcher = bench.coordinator.dispatcher
    await bench.until(lambda: any(r.num_outputs == 7 and r.is_decoding for r in dispatcher.requests()))
    (request,) = dispatcher.requests()
    assert request.placement is not None
    source = next(stage for stage in decoders if stage.name == request.placement.decode)
    target = next(stage for stage in decoders if stage is not source)
    target.pause_at = None
    return Case(bench, asking, source, target)


@pytest.fixture
async def case(make_bench: MakeBench) -> Case:
    return await standing(await make_bench("e", "p", "d", "d"))


def spans(answer: Answer) -> list[tuple[int, str]]:
    assert answer.finished is not None
    return [(span.stage, span.instance_id) for span in answer.finished.stages]


async def test_the_target_goes_on(case: Case) -> None:
    moved = await migrate(case.bench)
    assert (moved.from_instance_id, moved.to_instance_id) == (case.source.name, case.target.name)
    assert (moved.pause_ms, moved.size_bytes, moved.transport) == (2.0, 5, "shm")
    answer = await case.ends_well()
    decodes = [name for stage, name in spans(answer) if stage == pb.STAGE_DECODE]
    assert decodes == [case.source.name, case.target.name]
    decode = next(c.decode for c in case.target.commands if c.HasField("decode"))
    assert decode.prefill.instance_id == case.source.name
    assert list(decode.sequence.output_token_ids) == EXPECTED[:7]


@pytest.mark.parametrize("roles", [("epd", "epd"), ("ep", "pd", "d")], ids="+".join)
async def test_other_topologies_and_pictures(make_bench: MakeBench, roles: tuple[str, ...]) -> None:
    case = await standing(await make_bench(*roles, gateway=True), images=(pb.ImagePart(data=picture()),))
    await migrate(case.bench, to=case.target.name)
    await case.ends_well()


async def test_back_again(case: Case) -> None:
    case.target.pause_at = 12
    await migrate(case.bench)
    await case.bench.until(lambda: case.request.num_outputs == 12)
    case.source.pause_at = None
    moved = await migrate(case.bench)
    assert moved.to_instance_id == case.source.name
    answer = await case.ends_well()
    assert len([stage for stage, _ in spans(answer) if stage == pb.STAGE_DECODE]) == 3


async def test_both_ends_are_booked_while_it_moves(case: Case) -> None:
    before = case.promised()
    case.source.hold_move.clear()
    moving = case.moving()
    await case.bench.until(lambda: case.request.migration)
    source, target = case.source.name, case.target.name
    assert case.promised() == before | {target: before[source]}
    assert case.bench.coordinator.dispatcher.requests_by_instance()[target] == 1
    case.target.pause_at = 9
    case.source.hold_move.set()
    await moving
    assert case.promised() == before | {source: 0, target: before[source]}
    case.target.resume()
    await case.ends_well()


async def test_a_source_that_refuses_keeps_it(case: Case) -> None:
    case.source.move_refusal = "no room over there"
    assert await refused(case.bench) == (grpc.StatusCode.FAILED_PRECONDITION, "no room over there")
    await case.bench.until(lambda: not case.target.jobs)
    assert case.target.kinds()[-1] == "cancel"
    assert case.request.migration is None
    case.source.resume()
    answer = await case.ends_well()
    assert [name for stage, name in spans(answer) if stage == pb.STAGE_DECODE] == [case.source.name]


async def test_a_target_that_shows_tokens_has_it_whatever_the_source_says(case: Case) -> None:
    """The commit arrived, its answer did not: tokens of the target have been sent to the client."""
    case.source.move_refusal = "the target did not confirm"
    moving = await shown_by_the_target(case)
    case.source.hold_move.set()
    assert (await moving).to_instance_id == case.target.name
    await case.bench.until(lambda: case.source.kinds()[-1] == "cancel")
    case.target.resume()
    await case.ends_well()


async def shown_by_the_target(case: Case, first: int = 7) -> asyncio.Task[admin_pb2.MigrateResponse]:
    """The target went on with token `first` and stands at token 10; the source has not said so."""
    case.source.hold_move.clear()
    moving = case.moving()
    await case.bench.until(lambda: case.request.migration)
    migration = case.request.migration
    assert migration is not None
    case.bench.world.moved["r", migration.new_attempt] = first
    case.target.pause_at = 10
    case.bench.world.prefilled["r", migration.new_attempt].set()
    await case.bench.until(lambda: case.request.num_outputs == 10 or case.request.output.has_gap)
    return moving


async def test_a_source_that_dies_then_is_not_missed(case: Case) -> None:
    moving = await shown_by_the_target(case)
    await case.source.crash()
    case.bench.stages.remove(case.source)
    assert (await moving).to_instance_id == case.target.name
    assert case.request.num_attempts == 1
    case.target.resume()
    answer = await case.ends_well()
    assert [stage for stage, _ in spans(answer)].count(pb.STAGE_PREFILL) == 1


async def test_a_source_that_dies_with_the_word_of_its_last_tokens(case: Case) -> None:
    """The target has tokens that only the source could have reported: they are made again."""
    moving = await shown_by_the_target(case, first=8)
    await case.source.crash()
    case.bench.stages.remove(case.source)
    case.target.resume()
    with pytest.raises(grpc.aio.AioRpcError, match="dispatched again"):
        await moving
    assert [stage for stage, _ in spans(await case.ends_well())].count(pb.STAGE_PREFILL) == 2


async def test_a_source_that_goes_on_for_nobody_is_told(make_bench: MakeBench) -> None:
    case = await standing(await make_bench("e", "p", "d", "d", report_grace_s=0.05))
    moving = await shown_by_the_target(case)
    stayed = stage_control_pb2.MigrationReport(request_id="r", attempt=case.request.attempt, reason="?")
    case.target.resume()
    assert (await case.asking).token_ids == EXPECTED
    with pytest.raises(grpc.aio.AioRpcError, match="did not say more"):
        await moving
    assert "cancel" not in case.source.kinds()
    case.source.report(stage_control_pb2.StageMessage(migration=stayed))
    await case.bench.until(lambda: case.source.kinds()[-1] == "cancel")
    case.source.hold_move.set()
    await case.bench.assert_idle()


async def test_tokens_of_the_target_may_overtake_the_report(case: Case) -> None:
    case.source.hold_report.clear()
    moving = case.moving()
    await case.bench.until(lambda: case.request.state is RequestState.FINISHED)
    assert not moving.done()
    case.source.hold_report.set()
    assert (await moving).to_instance_id == case.target.name
    answer = await case.ends_well()
    decodes = [name for stage, name in spans(answer) if stage == pb.STAGE_DECODE]
    assert decodes == [case.source.name, case.target.name]


async def test_a_source_that_never_reports_holds_nothing_up(make_bench: MakeBench) -> None:
    case = await standing(await make_bench("e", "p", "d", "d", report_grace_s=0.05))
    case.source.hold_report.clear()
    moving = case.moving()
    assert (await case.asking).token_ids == EXPECTED
    with pytest.raises(grpc.aio.AioRpcError, match="did not say more"):
        await moving
    case.source.hold_report.set()
    await case.ends_well()


async def test_the_source_dies_meanwhile(case: Case) -> None:
    case.source.hold_move.clear()
    moving = case.moving()
    await case.bench.until(lambda: "migrate" in case.source.kinds())
    await case.source.crash()
    case.bench.stages.remove(case.source)
    with pytest.raises(grpc.aio.AioRpcError, match="dispatched again"):
        await moving
    answer = await case.ends_well()
    assert [stage for stage, _ in spans(answer)].count(pb.STAGE_PREFILL) == 2
    assert "cancel" in case.target.kinds()


async def test_the_target_dies_and_the_source_keeps_it(case: Case) -> None:
    case.source.hold_move.clear()
    case.source.move_refusal = "the transfer failed"
    moving = case.moving()
    await case.bench.until(lambda: "decode" in case.target.kinds())
    await case.target.crash()
    case.bench.stages.remove(case.target)
    await case.bench.until(lambda: case.request.migration and case.request.migration.target_loss)
    assert case.request.num_attempts == 1
    case.source.hold_move.set()
    with pytest.raises(grpc.aio.AioRpcError, match="the transfer failed"):
        await moving
    case.source.resume()
    answer = await case.ends_well()
    assert [stage for stage, _ in spans(answer)].count(pb.STAGE_PREFILL) == 1


async def test_the_target_dies_with_it(case: Case) -> None:
    case.source.hold_move.clear()
    moving = case.moving()
    await case.bench.until(lambda: "decode" in case.target.kinds())
    await case.target.crash()
    case.bench.stages.remove(case.target)
    await case.bench.until(lambda: case.request.migration and case.request.migration.target_loss)
    case.source.pause_at = None
    case.source.hold_move.set()
    await moving
    answer = await case.ends_well()
    assert [stage for stage, _ in spans(answer)].count(pb.STAGE_PREFILL) == 2


async def test_the_target_fails_with_it(case: Case) -> None:
    case.source.hold_move.clear()
    moving = case.moving()
    await case.bench.until(lambda: case.request.migration and "decode" in case.target.kinds())
    assert case.request.migration is not None
    failure = stage_control_pb2.FailureReport(
        request_id="r",
        attempt=case.request.migration.new_attempt,
        stage=pb.STAGE_DECODE,
        code=grpc.StatusCode.ABORTED.value[0],
        message="out of blocks",
    )
    case.target.report(stage_control_pb2.StageMessage(failure=failure))
    await case.bench.until(lambda: case.request.migration and case.request.migration.target_loss)
    case.source.pause_at = None
    case.source.hold_move.set()
    await moving
    answer = await case.ends_well()
    assert [stage for stage, _ in spans(answer)].count(pb.STAGE_PREFILL) == 2


async def test_the_answer_ends_meanwhile(case: Case) -> None:
    case.source.hold_move.clear()
    moving = case.moving()
    await case.bench.until(lambda: "migrate" in case.source.kinds())
    case.source.resume()
    answer = await case.asking
    assert answer.token_ids == EXPECTED
    with pytest.raises(grpc.aio.AioRpcError, match="the answer ended"):
        await moving
    case.source.hold_move.set()
    await case.bench.assert_idle()
    assert "cancel" in case.target.kinds()


async def test_the_client_leaves_meanwhile(case: Case) -> None:
    case.source.hold_move.clear()
    moving = case.moving()
    await case.bench.until(lambda: "migrate" in case.source.kinds())
    case.asking.cancel()
    with pytest.raises(grpc.aio.AioRpcError, match="the request ended"):
        await moving
    await case.bench.until(lambda: not case.source.jobs and not case.target.jobs)
    assert "cancel" in case.source.kinds()
    await case.bench.assert_idle()


async def test_whoever_asked_may_leave(case: Case) -> None:
    case.source.hold_move.clear()
    moving = case.moving()
    await case.bench.until(lambda: "migrate" in case.source.kinds())
    moving.cancel()
    await asyncio.gather(moving, return_exceptions=True)
    case.target.pause_at = 9
    case.source.hold_move.set()
    await case.bench.until(lambda: case.request.num_moves == 1)
    case.target.resume()
    await case.ends_well()


async def test_it_moves_once_at_a_time(case: Case) -> None:
    case.source.hold_move.clear()
    moving = case.moving()
    await case.bench.until(lambda: case.request.migration)
    code, message = await refused(case.bench)
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "already" in message
    case.source.hold_move.set()
    await moving
    await case.ends_well()


async def test_a_stale_report_changes_nothing(case: Case) -> None:
    stale = stage_control_pb2.MigrationReport(
        request_id="r", attempt=case.request.attempt, new_attempt=1, has_moved=True
    )
    case.source.report(stage_control_pb2.StageMessage(migration=stale))
    case.source.resume()
    await case.ends_well()


async def test_unknown_names(case: Case) -> None:
    assert (await refused(case.bench, "nobody"))[0] is grpc.StatusCode.NOT_FOUND
    assert (await refused(case.bench, to="nowhere"))[0] is grpc.StatusCode.NOT_FOUND
    case.source.resume()
    await case.ends_well()


async def test_unfit_targets(case: Case) -> None:
    encoder = case.bench.stages[0]
    for to, reason in ((case.source.name, "decodes on"), (encoder.name, "does not play DECODE")):
        code, message = await refused(case.bench, to=to)
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert reason in message
    case.source.resume()
    await case.ends_well()


async def test_no_other_instance_has_room(make_bench: MakeBench) -> None:
    bench = await make_bench("e", "p", "d")
    (small,) = await bench.add("d", blocks=1)
    case = await standing(bench)
    assert case.target is small
    code, message = await refused(bench)
    assert (code, message) == (grpc.StatusCode.FAILED_PRECONDITION, "no other decode instance has room")
    assert "has no room" in (await refused(bench, to=small.name))[1]
    case.source.resume()
    await case.ends_well()


async def test_what_does_not_decode_yet_stays(make_bench: MakeBench) -> None:
    bench = await make_bench("e", "p", "d", "d")
    bench.stages[1].hold_first.clear()
    asking = asyncio.create_task(bench.ask(request_id="r", max_tokens=20, seed=4))
    await bench.until(lambda: "prefill" in bench.stages[1].kinds())
    code, message = await refused(bench)
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "prefilling" in message
    bench.stages[1].hold_first.set()
    assert (await asking).token_ids == EXPECTED
    await bench.assert_idle()


async def test_migrating_needs_the_token(bench: Bench) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await admin_pb2_grpc.AdminStub(bench.channel).Migrate(admin_pb2.MigrateRequest(request_id="r"))
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
