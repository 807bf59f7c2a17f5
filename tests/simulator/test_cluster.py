from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator
from coordinator.policy import sets
from coordinator.policy.plan import PlanError
from coordinator.policy.scheduler import Slo
from core.costs import MoveCosts, StepCosts, StepTerm
from core.encode_order import SLICE_S
from core.lifecycle import RequestState
from simulator import schedulers
from simulator.cluster import Cluster
from simulator.config import ClusterConfig, SimulationError
from simulator.instance import Instance
from simulator.result import RunResult
from simulator.workload.request import Picture, Request
from tests.simulator.clusters import cluster, picture, run, text
from tests.simulator.profiles import ROUND

SPLIT = {"i0": "e", "i1": "p", "i2": "d", "i3": "pd"}
OTHER = {"i0": "ep", "i1": "d", "i2": "pd", "i3": "d"}
# No two steps that differ take equally long: at a tie, which of two events is first would be chance.
ODD = replace(
    ROUND,
    step=StepCosts(
        1.037e-3,
        StepTerm(base_s=0.0101, per_sequence_s=1.3e-5, per_context_token_s=1.7e-7),
        StepTerm(per_new_token_s=1.09e-4, per_attended_s=3.1e-8),
    ),
)
TIGHT = replace(ROUND, kv_tokens=1024)
DEAR = replace(ROUND, kv_move=MoveCosts(5.0, 1e9))  # what decodes ends in place

pictures = st.builds(Picture, st.just(200), st.just(200), st.integers(1, 200), st.integers(0, 3))
requests = st.builds(
    Request,
    st.just(""),
    st.floats(0, 2),
    st.integers(1, 400),
    st.integers(1, 60),
    st.just(60),
    st.lists(pictures, max_size=3).map(tuple),
)
workloads = st.lists(requests, min_size=1, max_size=40).map(
    lambda found: [
        replace(each, request_id=f"r{at}")
        for at, each in enumerate(sorted(found, key=lambda each: each.arrival_s))
    ]
)
plans = st.lists(st.sampled_from([SPLIT, OTHER, {}]), max_size=4).map(
    lambda found: [(0.5 * at, plan) for at, plan in enumerate(found)]
)
modes = st.sampled_from(
    [
        {},
        {"encoder_cache": True},
        {"discipline": "chunked"},
        {"media_workers": 1, "host_time": True},
        {"control_s": 0.01},
    ]
)
own_modes = st.sampled_from(  # of our engine
    [
        {"unified": True},
        {"unified": True, "encoding": "inline", "host_time": True},
        {"encoding": "inline"},
        {"unified": True, "encoding": "blocking", "discipline": "chunked"},
    ]
)


@settings(max_examples=60, deadline=None)
@given(workloads, plans, st.one_of(modes, own_modes), st.sampled_from([ROUND, TIGHT, DEAR]))
def test_every_request_ends_once_and_nothing_is_left(
    workload: list[Request], plans: Any, mode: dict[str, Any], profile: Any
) -> None:
    simulated, scheduler = cluster(workload, plans, 4, profile=profile, **mode)
    result = simulated.run()
    simulated.check_idle()
    assert sorted(each.request_id for each in result.records) == sorted(each.request_id for each in workload)
    outputs = {each.request_id: each.output_tokens for each in workload}
    for record in result.records:
        assert record.state in (RequestState.FINISHED, RequestState.FAILED)
        if record.state is RequestState.FINISHED:
            assert record.output_tokens == outputs[record.request_id]
            assert record.arrival_s <= record.dispatched_s <= record.first_token_s <= record.finished_s  # type: ignore[operator]
    assert scheduler.finished == sum(each.state is RequestState.FINISHED for each in result.records)


@settings(max_examples=40, deadline=None)
@given(workloads, modes, st.sampled_from(["chunked", "whole"]), st.sampled_from([ROUND, TIGHT]))
def test_replicas_end_every_request_whatever_waits_on_them(
    workload: list[Request], mode: dict[str, Any], discipline: Any, profile: Any
) -> None:
    result = replicas(workload, 2, profile=profile, **{**mode, "discipline": discipline})
    assert len(result.records) == len(workload)
    for record in result.records:
        assert record.state is RequestState.FAILED or record.dispatched_s == record.arrival_s


@pytest.mark.parametrize("discipline", ["chunked", "whole"])
def test_prompts_beyond_the_blocks_wait_on_their_replica_in_order(discipline: Any) -> None:
    workload = [text(f"r{at}", 0.001 * at, tokens=400, outputs=40) for at in range(8)]
    result = replicas(workload, 1, profile=TIGHT, discipline=discipline)
    firsts = [each.first_token_s for each in sorted(result.records, key=lambda each: each.request_id)]
    assert firsts == sorted(firsts)
    assert firsts[-1] > result.records[0].finished_s  # 1,024 tokens hold two of them at a time
    assert {each.state for each in result.records} == {RequestState.FINISHED}


def replicas(workload: list[Request], instances: int, *, profile: Any, **config: Any) -> RunResult:
    config = {"control_s": 0.0, **config}
    for name in ("host_time", "unified"):
        config.pop(name, None)
    scheduler = schedulers.build_scheduler("replicas", (), profile, Slo(1.0, 0.1))
    simulated = Cluster(ClusterConfig(instances, profile, **config), scheduler, workload)
    result = simulated.run()
    simulated.check_idle()
    return result


@settings(max_examples=25, deadline=None)
@given(
    st.integers(64, 512), st.floats(0.003, 0.03), st.floats(0.1, 0.5), st.integers(1, 2), st.integers(1, 400)
)
def test_a_stream_of_text_does_not_starve_pictures(
    text_tokens: int, gap_s: float, arrival_s: float, num_pictures: int, num_tokens: int
) -> None:
    """However much comes: a picture waits for the step at hand, for two steps per turn of its encoding, and
    then has half of each."""
    profile = replace(ROUND, kv_tokens=2**20, embedding_tokens=2**20)
    stream = [text(f"t{at}", at * gap_s, text_tokens, outputs=1) for at in range(int(2 / gap_s))]
    found = picture("p", arrival_s, num_tokens, outputs=1, text_tokens=1)
    found = replace(found, pictures=found.pictures * num_pictures)
    records = run(sorted([*stream, found], key=lambda each: each.arrival_s), profile=profile).records
    ttft_s = next(each.ttft_s for each in records if each.request_id == "p")
    encode_s = num_pictures * (0.050 + 1e-4 * num_tokens)
    num_steps = 3 + -(-(num_pictures * num_tokens + 1) // (ROUND.chunk_tokens // 2))
    num_steps += 2 * math.ceil(encode_s / SLICE_S)
    longest_s = 1e-3 + 1e-4 * ROUND.chunk_tokens * 9 / 8
    assert ttft_s is not None
    assert ttft_s <= encode_s + num_steps * longest_s + 1e-9


@settings(max_examples=25, deadline=None)
@given(workloads)
def test_whole_prompts_end_too(workload: list[Request]) -> None:
    result = run(workload, instances=2, discipline="whole")
    assert len(result.records) == len(workload)


@settings(max_examples=25, deadline=None)
@given(workloads, plans)
def test_the_same_input_gives_the_same_result(workload: list[Request], plans: Any) -> None:
    assert run(workload, plans, 4) == run(workload, plans, 4)


@settings(max_examples=25, deadline=None)
@given(workloads, plans)
def test_single_steps_give_the_times_of_runs(workload: list[Request], plans: Any) -> None:
    together = run(workload, plans, 4, profile=ODD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Instance, "_is_awaited", lambda _: True)
        apart = run(workload, plans, 4, profile=ODD)
    assert sum(use.num_steps for use in apart.usage.values()) >= sum(
        use.num_steps for use in together.usage.values()
    )
    for one, other in zip(together.records, apart.records, strict=True):
        assert one.request_id == other.request_id
        assert one.finished_s == pytest.approx(other.finished_s, abs=1e-9)
        assert one.first_token_s == pytest.approx(other.first_token_s, abs=1e-9)


def test_sequences_give_way_when_blocks_run_short() -> None:
    workload = [text(f"r{at}", 0.001 * at, tokens=200, outputs=150, source="t") for at in range(5)]
    workload = [replace(each, max_tokens=10_000) for each in workload]
    simulated, _ = cluster(workload, profile=TIGHT, default_output_tokens=1)
    result = simulated.run()
    simulated.check_idle()
    assert sum(each.num_preemptions for each in result.records) > 0
    assert Counter(each.output_tokens for each in result.records) == {150: 5}
    assert result.records[0].request_id == "r0"  # who came first never gives way


def test_pictures_that_give_way_away_from_their_embeddings_start_again() -> None:
    workload = [picture(f"r{at}", 0.001 * at, outputs=200, text_tokens=10) for at in range(5)]
    workload = [replace(each, max_tokens=10_000) for each in workload]
    result = run(workload, [(0.0, {"i0": "ep", "i1": "d"})], 2, profile=TIGHT, default_output_tokens=1)
    assert sum(each.num_preemptions for each in result.records) > 0
    assert Counter(each.output_tokens for each in result.records) == {200: 5}


def test_a_change_of_roles_moves_what_decodes_and_loses_nothing() -> None:
    workload = [text(f"r{at}", 0.01 * at, outputs=100) for at in range(8)]
    result = run(workload, [(0.0, {"i0": "pd", "i1": "epd"}), (0.5, {"i0": "e", "i1": "epd"})], 2)
    assert result.num_switches == 1
    assert result.num_moves >= 1
    assert sum(each.num_moves for each in result.records) == result.num_moves
    spans = [
        (span.assignment, span.end_s > span.start_s) for span in result.spans if span.instance_id == "i0"
    ]
    assert spans == [("shared:pd", True), ("", True), ("shared:e", True)]


def test_what_never_fits_fails_at_once() -> None:
    (record,) = run([text("a", tokens=5000)]).records
    assert record.state is RequestState.FAILED
    assert record.finished_s == 0.0


def test_what_is_reserved_for_an_answer_has_to_fit_too() -> None:
    """The pool holds 4,096 tokens, and 256 are reserved for an answer of unknown length."""
    records = run([replace(text("a", tokens=4000), max_tokens=2048), text("b")]).records
    assert [each.state for each in records] == [RequestState.FAILED, RequestState.FINISHED]


def test_a_plan_that_lacks_a_stage_is_refused() -> None:
    with pytest.raises(PlanError, match="nobody would play decode"):
        run([text("a")], [(0.0, {"i0": "ep"})])


def test_policies_that_never_dispatch_are_an_error() -> None:
    simulated, scheduler = cluster([text("a")], stall_s=60.0)
    scheduler.place = lambda *_: None  # type: ignore[method-assign]
    with pytest.raises(SimulationError, match="1 requests wait"):
        simulated.run()


def test_steps_are_told_to_the_policies_as_the_profile_has_them() -> None:
    simulated, scheduler = cluster([text("a", outputs=30), text("b", 0.05)])
    simulated.run()
    assert scheduler.steps
    for _, shape, seconds in scheduler.steps:
        assert seconds == pytest.approx(ROUND.step.step_s(shape))


def test_policies_come_from_the_coordinator() -> None:
    """No file of the simulator makes a placement, plan or transition of its own, or opens an instance."""
    files = list(Path(simulator.__path__[0]).rglob("*.py"))
    assert len(files) > 20
    makers = [
        file.name
        for file in files
        if re.search(r"\b(Placement|Plan|Transition|set_open)\(", file.read_text())
    ]
    assert makers == []
    assert schedulers.make_scheduler is sets.make_scheduler
