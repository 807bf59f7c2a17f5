"""The request record moves along the table of core.lifecycle and nowhere else."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.fanout import RequestOutput
from coordinator.migration import Migration
from coordinator.policy.view import Placement
from coordinator.request import Request
from coordinator.stage_messages import StageReport, TokenRun
from core.lifecycle import IllegalMove, RequestState
from core.sampling import SamplingParams
from core.stages import Stage


def make_request(state: RequestState = RequestState.QUEUED, max_tokens: int = 100) -> Request:
    return Request(
        request_id="r",
        arrival_s=0.0,
        arrival_ns=1_000_000_000,
        prompt=(1,) * 33,
        sampling=SamplingParams(max_tokens),
        stop_token_ids=frozenset(),
        output=RequestOutput(lambda _: "", (), frozenset()),
        reserve_tokens=10,
        state=state,
    )


def placed(prefill: str = "p", decode: str = "d") -> Request:
    request = make_request(RequestState.PREFILLING)
    request.placement = Placement("r", (), prefill, decode, 0.0)
    return request


def show(request: Request, count: int) -> None:
    request.output.push(TokenRun("r", 0, request.num_outputs, (7,) * count))


def test_tokens_before_the_encode_report() -> None:
    request = make_request(RequestState.ENCODING)
    request.advance(RequestState.DECODING)
    assert request.state is RequestState.DECODING
    request.advance(RequestState.DECODING)
    request.advance(RequestState.FINISHED)
    assert request.is_final


@pytest.mark.parametrize("state", [RequestState.FINISHED, RequestState.FAILED, RequestState.CANCELLED])
@pytest.mark.parametrize("wanted", RequestState)
def test_final_is_final(state: RequestState, wanted: RequestState) -> None:
    with pytest.raises(IllegalMove):
        make_request(state).advance(wanted)


def test_queued_cannot_decode() -> None:
    with pytest.raises(IllegalMove):
        make_request().advance(RequestState.DECODING)


def test_the_prefill_instance_is_needed_until_the_hand_over() -> None:
    request = placed()
    show(request, 1)
    assert request.needs("p")
    show(request, 1)
    assert not request.needs("p")


def test_the_reserve_grows_with_an_answer_longer_than_expected() -> None:
    request = placed("i", "i")
    assert request.reserved_outputs == 10
    show(request, 60)
    assert request.reserved_outputs == 61
    show(request, 40)
    assert request.reserved_outputs == 100


async def test_while_it_moves_both_ends_count() -> None:
    request = placed()
    show(request, 2)
    request.migration = Migration("d", "x", 9, asyncio.get_running_loop().create_future())
    assert request.has_stage(Stage.DECODE, "x")
    assert not request.needs("x")
    assert request.listens_to(9)
    assert not request.listens_to(10)
    request.migration = None
    request.move_to("x", 9, now_s=1.0)
    assert request.listens_to(9)
    assert not request.listens_to(0)


def test_stage_times_count_from_arrival() -> None:
    request = placed()
    request.note_stage(StageReport("r", 0, Stage.PREFILL, 0, 1_002_000_000, 1_005_000_000, "shm", 4), "p")
    (span,) = request.stages
    assert (span.start_ms, span.end_ms, span.transport) == (2.0, 5.0, "shm")
    assert request.cached_tokens == 4
    request.note_stage(StageReport("r", 0, Stage.PREFILL, 0, 1_008_000_000, 1_009_000_000, "shm", 32), "p")
    assert len(request.stages) == 2
    assert request.cached_tokens == 4  # what the second one found was its own
    assert request.has_all_reports
