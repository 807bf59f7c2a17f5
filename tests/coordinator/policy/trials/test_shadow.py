"""A policy set that decides without acting."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.policy.books import Books
from coordinator.policy.decisions import Decision
from coordinator.policy.plan import Plan
from coordinator.policy.scheduler import Scheduler, Slo
from coordinator.policy.sets import POLICY_SETS, make_scheduler
from coordinator.policy.trials.lineup import Lineup
from coordinator.policy.trials.shadow import DIFFERENCE, Shadow
from coordinator.policy.trials.shadow_report import Difference, ShadowReport
from coordinator.policy.trials.time_share import TimeShare
from coordinator.policy.view import Placement
from core.clock import ManualClock
from simulator.cluster import Cluster
from simulator.config import ClusterConfig
from simulator.result import RunResult
from simulator.unified import UnifiedCache
from simulator.workload.request import Request
from tests.coordinator.policy.cluster import PROFILE, books_of, instance, pictures, text
from tests.coordinator.policy.driver import dispatched
from tests.simulator.clusters import picture
from tests.simulator.clusters import text as text_request
from tests.simulator.profiles import ROUND

SLO = Slo(1.0, 0.5)
SETS = sorted(POLICY_SETS)


def lineup(acting: str, shadow: str, books: Books, time: TimeShare | None = None) -> Lineup:
    made = Lineup(make_scheduler(acting, PROFILE, SLO))
    made.shadow = Shadow(shadow, make_scheduler(shadow, PROFILE, SLO), books, 0.0, time=time)
    return made


def report_of(made: Lineup, now_s: float = 0.0) -> ShadowReport:
    assert made.shadow is not None
    return made.shadow.report(now_s)


class Breaking:
    """A scheduler that raises at every dispatch."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.decisions, self.tick_s = scheduler.decisions, scheduler.tick_s

    def place(self, *_: object) -> Placement | None:
        raise RuntimeError("broken")

    def __getattr__(self, name: str) -> object:
        return getattr(self._scheduler, name)


def test_the_same_set_decides_the_same() -> None:
    books = books_of(instance("a"), instance("b"))
    for number in range(4):
        books.queue(text(f"t{number}"))
        books.queue(pictures(f"p{number}"))
    made = lineup("emp", "emp", books)
    placed = dispatched(made, books)
    report = report_of(made)
    assert report.dispatches == {
        Difference.NONE: len(placed),
        Difference.ELSEWHERE: 0,
        Difference.HELD: 0,
    }
    assert (report.differing_share, report.num_predicted) == (0.0, len(placed))
    assert report.acting_first_s == report.shadow_first_s


def test_what_the_shadow_would_hold_is_counted_and_kept_with_both_reasons() -> None:
    """A router fills a replica beyond what dispatch leaves on it."""
    books = books_of(instance("a", kv_blocks=40))
    for number in range(3):
        books.queue(text(f"t{number}", prompt=400, output=100))
    made = lineup("replicas", "coupled", books)
    dispatched(made, books)
    report = report_of(made)
    assert (report.dispatches[Difference.NONE], report.dispatches[Difference.HELD]) == (1, 2)
    assert made.shadow is not None
    kept = [each for each in made.shadow.decisions.about("t2") if each.piece == DIFFERENCE]
    assert "would let it wait" in kept[0].choice
    assert not [each for each in made.decisions.about() if each.piece == DIFFERENCE]


def test_another_instance_is_counted_by_stage() -> None:
    """Coupled replicas keep a request on one instance; emp decodes where nobody prefills."""
    books = books_of(instance("a", "ep"), instance("b", "epd"), instance("c", "d"))
    books.queue(text("t", prompt=4000))
    made = lineup("coupled", "fixed", books)
    (placed,) = dispatched(made, books)
    report = report_of(made)
    assert placed.prefill == "b"
    assert report.dispatches[Difference.ELSEWHERE] == 1
    assert report.num_other_prefill == 1


def test_plan_changes_of_both_are_counted_and_what_they_want_now_is_shown() -> None:
    books = books_of(*(instance(name) for name in "abcd"))
    made = lineup("coupled", "static:equal", books)
    for at_s in (0.0, 0.25):
        made.plan(books, at_s)
    report = report_of(made, 0.25)
    assert (report.num_acting_changes, report.num_shadow_changes) == (0, 4)
    assert [str(shadow) for _, shadow in report.wanted.values()] == [
        "text:p", "text:d", "multimodal:ep", "multimodal:d",
    ]  # fmt: skip


def test_a_shadow_that_raises_is_stopped_and_says_why() -> None:
    books = books_of(instance("a"))
    for name in ("t0", "t1"):
        books.queue(text(name))
    made = Lineup(make_scheduler("emp", PROFILE, SLO))
    made.shadow = Shadow("emp", Breaking(make_scheduler("emp", PROFILE, SLO)), books, 0.0)
    assert len(dispatched(made, books)) == 2
    assert report_of(made).failure == "RuntimeError: broken"
    assert report_of(made).num_compared == 0


def test_without_time_dispatches_are_counted_as_not_compared() -> None:
    clock = ManualClock()
    time = TimeShare(clock, share=0.1, most_s=0.02)
    books = books_of(instance("a"))
    made = lineup("emp", "emp", books, time)
    time.spend(0.05)
    books.queue(text("t0"))
    dispatched(made, books)
    clock.advance(1.0)
    books.queue(text("t1"))
    dispatched(made, books)
    report = report_of(made)
    assert (report.num_skipped, report.num_compared) == (1, 1)
    assert report.spent_s == pytest.approx(0.05)


class Recording:
    """A scheduler, and all that it has said."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.tick_s, self.decisions = scheduler.tick_s, scheduler.decisions
        self.placements: list[Placement] = []
        self.plans: list[Plan] = []

    def place(self, books: Books, now_s: float) -> Placement | None:
        placement = self._scheduler.place(books, now_s)
        if placement is not None:
            self.placements.append(placement)
        return placement

    def plan(self, books: Books, now_s: float) -> Plan:
        self.plans.append(self._scheduler.plan(books, now_s))
        return self.plans[-1]

    def __getattr__(self, name: str) -> object:
        return getattr(self._scheduler, name)


@st.composite
def workloads(draw: st.DrawFn) -> list[Request]:
    """Text and pictures, some of them more than once, in bursts."""
    at_s, requests = 0.0, []
    for number in range(draw(st.integers(1, 25))):
        at_s += draw(st.sampled_from((0.0, 0.01, 0.2, 1.0)))
        outputs = draw(st.integers(1, 40))
        if draw(st.booleans()):
            tokens = draw(st.sampled_from((16, 100, 900)))
            requests.append(text_request(f"r{number}", at_s, tokens, outputs))
        else:
            digest = draw(st.sampled_from((None, 1, 2)))
            requests.append(picture(f"r{number}", at_s, outputs=outputs, digest=digest))
    return requests


def simulated(
    acting: str, shadow: str | None, requests: list[Request], instances: int
) -> tuple[Recording, RunResult, list[Decision]]:
    caches = UnifiedCache(ROUND)
    main = make_scheduler(acting, ROUND, SLO, warmth=caches)
    made = Lineup(main)
    recording = Recording(made)
    cluster = Cluster(ClusterConfig(instances, ROUND), recording, requests, caches)
    if shadow is not None:
        made.shadow = Shadow(shadow, make_scheduler(shadow, ROUND, SLO, warmth=caches), cluster.books, 0.0)
    result = cluster.run()
    cluster.check_idle()
    if made.shadow is not None:
        report = made.shadow.report(result.duration_s)
        assert not report.failure
        assert report.num_compared == len(recording.placements)
    return recording, result, list(main.decisions.about())


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(SETS), st.sampled_from(SETS), workloads(), st.integers(1, 5))
def test_a_shadow_changes_nothing_of_what_the_acting_set_does(
    acting: str, shadow: str, requests: list[Request], instances: int
) -> None:
    alone, result, decisions = simulated(acting, None, requests, instances)
    watched, same_result, same_decisions = simulated(acting, shadow, requests, instances)
    assert watched.placements == alone.placements
    assert watched.plans == alone.plans
    assert same_decisions == decisions
    assert replace(same_result, usage={}) == replace(result, usage={})
