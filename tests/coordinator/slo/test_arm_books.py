"""What the arms of an experiment are compared by."""

from __future__ import annotations

import pytest

from coordinator.errors import InvalidFieldError, OverloadedError
from coordinator.policy.scheduler import Slo
from coordinator.policy.seat import Arm, Seat
from coordinator.policy.sets import make_scheduler
from coordinator.policy.trials.trial import Trial
from coordinator.slo.arm_books import ArmBooks
from coordinator.slo.arm_report import ArmReport
from coordinator.slo.verdict import Verdict
from core.clock import ManualClock
from core.lifecycle import RequestState
from tests.coordinator.ends import make_call, make_end
from tests.coordinator.policy.cluster import PROFILE, books_of, instance

SLO = Slo(0.6, 0.2)
OWN_A, OWN_B = Seat(Arm.A, Arm.A, "x"), Seat(Arm.B, Arm.B, "x")
CROSSED = Seat(Arm.B, Arm.A, "x")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def books(clock: ManualClock) -> ArmBooks:
    arms = ArmBooks(SLO, clock)
    sets = {
        arm: (name, make_scheduler(name, PROFILE, SLO))
        for arm, name in zip(Arm, ("emp", "coupled"), strict=True)
    }
    arms.begin(Trial("x", books_of(*map(instance, "abc")), sets, 0.3, 0.0))
    return arms


def arms_of(books: ArmBooks) -> tuple[ArmReport, ArmReport]:
    report = books.report()
    assert report is not None
    return report.arms


def test_requests_count_in_the_arm_that_they_belong_to(books: ArmBooks, clock: ManualClock) -> None:
    for seat in (OWN_A, OWN_A, OWN_B):
        books.on_end(make_end(seat=seat))
    books.on_end(make_end(seat=OWN_B, first_token_s=0.8))
    clock.advance(10)
    a, b = arms_of(books)
    assert (a.policy, a.instance_ids, a.num_good, a.num_finished) == ("emp", ("a", "b"), 2, 2)
    assert (b.policy, b.instance_ids, b.num_good, b.verdicts[Verdict.LATE]) == ("coupled", ("c",), 1, 1)
    assert (a.instance_s, b.instance_s) == (20, 10)
    assert (a.ttft_s, b.ttft_s) == ((0.5, 0.5), (0.5, 0.8))


def test_those_that_crossed_over_are_counted_apart(books: ArmBooks) -> None:
    books.on_end(make_end(seat=CROSSED))
    a, b = arms_of(books)
    assert (a.num_calls, b.num_calls, b.num_crossed, a.ttft_s) == (0, 0, 1, ())


def test_what_belongs_to_no_arm_or_to_another_experiment_does_not_count(books: ArmBooks) -> None:
    books.on_end(make_end())
    books.on_end(make_end(seat=Seat(Arm.A, Arm.A, "earlier")))
    assert [arm.num_calls for arm in arms_of(books)] == [0, 0]


def test_unserved_by_whose_fault_the_call_says(books: ArmBooks) -> None:
    for name, error in (
        ("r", OverloadedError("full", 1.0)),
        ("s", InvalidFieldError("f", "bad")),
        ("t", None),
    ):
        books.on_end(make_end(request_id=name, seat=OWN_B, state=RequestState.FAILED))
        books.on_unserved(make_call(error, request_id=name))
    books.on_unserved(make_call(OverloadedError("full", 1.0), request_id="refused"))
    assert [arm.verdicts[Verdict.UNSERVED] for arm in arms_of(books)] == [0, 1]
    assert not books._unfinished


def test_figures_side_by_side_with_intervals(books: ArmBooks, clock: ManualClock) -> None:
    for number in range(200):
        books.on_end(make_end(seat=OWN_A, first_token_s=0.5 + number / 1000))
        books.on_end(make_end(seat=OWN_B, first_token_s=0.3 + number / 1000, took_s=1.0))
    clock.advance(100)
    report = books.report()
    assert report is not None
    found = {each.name: each for each in report.measures()}
    attainment = found["attainment"]
    assert (attainment.a, attainment.b) == (pytest.approx(0.505, abs=0.01), 1.0)
    assert attainment.change is not None
    assert 0.4 < attainment.change.low < attainment.change.value < attainment.change.high < 0.6
    ttft = found["ttft_p95_s"].change
    assert ttft is not None
    assert ttft.value == pytest.approx(-0.2)
    assert ttft.low < ttft.value < ttft.high < 0
    assert found["goodput_rps"].b == 2.0
    assert found["goodput_per_instance_rps"].a == pytest.approx(0.505, abs=0.01)
    assert (found["instance_s_per_thousand"].a, found["instance_s_per_thousand"].b) == (1000, 500)


def test_too_little_says_nothing_of_a_change(books: ArmBooks) -> None:
    books.on_end(make_end(seat=OWN_A))
    report = books.report()
    assert report is not None
    assert {each.change for each in report.measures()} == {None}
    assert {each.name: each.a for each in report.measures()}["ttft_p95_s"] == 0.5


def test_nothing_is_kept_without_an_experiment(books: ArmBooks) -> None:
    books.end()
    books.on_end(make_end(seat=OWN_A, state=RequestState.FAILED))
    assert books.report() is None
    assert not books._unfinished
