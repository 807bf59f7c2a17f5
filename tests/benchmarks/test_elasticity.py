"""Traces that the simulator and live clusters play alike."""

from __future__ import annotations

import argparse
import hashlib
import io
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import elastic, fidelity
from benchmarks.elasticity.options import add_options, make_stage, trace_spec
from benchmarks.elasticity.pace import Pace, pace_between
from benchmarks.elasticity.pictures import gradient
from benchmarks.elasticity.simulating import (
    HostCosts,
    as_sent,
    check_pictures,
    host_costs,
    simulate,
    with_pictures,
)
from benchmarks.elasticity.trace import TraceSpec, make_trace, planned
from cli.load.outcomes import Outcome
from cli.load.texts import TextMaker
from cli.model_folder import model_folder
from core.profile_file import load_profile
from elasticmm_client.plan import Assignment, ClusterPlan, PlannedInstance
from elasticmm_client.plan import Pace as Seconds

SPEC = TraceSpec(
    duration_s=200.0,
    text_rate=2.0,
    image_rate=1.0,
    burst_start_s=50.0,
    burst_s=50.0,
    burst_factor=4.0,
    text_tokens=30,
    image_text_tokens=10,
    picture_px=(448, 336),
    pictures=2,
    output_tokens=8,
)


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(words)


def test_a_trace_is_that_of_its_seed_and_has_its_burst() -> None:
    trace = make_trace(SPEC, seed=1)
    assert trace == make_trace(SPEC, seed=1)
    assert trace != make_trace(SPEC, seed=2)
    assert [each.arrival_s for each in trace] == sorted(each.arrival_s for each in trace)
    images = [each for each in trace if each.source == "image"]
    in_burst = [each for each in images if 50 <= each.arrival_s < 100]
    assert len(in_burst) == pytest.approx(200, rel=0.2)
    assert len(images) - len(in_burst) == pytest.approx(150, rel=0.2)
    assert all(len(each.pictures) == 2 for each in images)


@pytest.mark.parametrize("wrong", [{"text_rate": 0.0}, {"burst_s": 500.0}])
def test_a_wrong_trace_is_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(SPEC, **wrong)  # type: ignore[arg-type]


def test_what_is_sent_is_what_the_trace_says() -> None:
    trace = make_trace(SPEC, seed=1)[:6]
    texts = TextMaker(model_folder(None))
    sent = planned(trace, texts, seed=3, time_scale=2.0)
    assert [each.at_s for each in sent] == [2 * each.arrival_s for each in trace]
    for request, each in zip(trace, sent, strict=True):
        assert texts.count(each.text) == request.text_tokens
        sizes = [Image.open(io.BytesIO(data)).size for data in each.images]
        assert sizes == [(item.width_px, item.height_px) for item in request.pictures]


def test_no_two_pictures_have_the_same_bytes() -> None:
    pictures = {hashlib.sha256(gradient(56, 56, number)).digest() for number in range(20)}
    assert len(pictures) == 20


@pytest.mark.parametrize("time_scale", ["1", "3"])
def test_the_simulator_plays_a_trace(tmp_path: Path, time_scale: str) -> None:
    trace = make_trace(SPEC, seed=1)
    stage = make_stage(options("emulated", "--instances", "2", "--time-scale", time_scale), tmp_path)
    simulated = simulate(stage, "coupled", trace, HostCosts(0.001, 0.0))
    assert [each.start_s for each in simulated.outcomes] == pytest.approx(
        [trace[each.index].arrival_s for each in simulated.outcomes]
    )
    assert sorted(each.index for each in simulated.outcomes) == list(range(len(trace)))
    assert all(each.is_ok and each.output_tokens == 8 and each.ttft_s for each in simulated.outcomes)
    assert simulated.num_switches == 0


def test_what_the_host_adds_to_a_lone_request(tmp_path: Path) -> None:
    stage = make_stage(options("emulated", "--time-scale", "2"), tmp_path)
    alone_s = load_profile("a800-qwen2.5-vl-7b").prefill_s(900)
    warm_up = [
        Outcome(at, "text", 0.0, 1.0, ttft_s=alone_s + added_s, prompt_tokens=900)
        for at, added_s in enumerate((0.05, 0.03, 0.01, 0.005))
    ]
    warm_up.append(Outcome(4, "image", 0.0, 1.0, ttft_s=0.0, prompt_tokens=900))
    assert host_costs(stage, warm_up) == HostCosts(pytest.approx(0.01), 0.0)
    assert host_costs(stage, []) == HostCosts(0.0, 0.0)


def test_what_the_host_adds_where_there_are_pictures(tmp_path: Path) -> None:
    """The median over lone requests but the first, and the simulator's request comes so much later."""
    stage = make_stage(options("emulated", "--instances", "2"), tmp_path)
    trace, host = [each for each in make_trace(SPEC, seed=1) if each.pictures][:4], HostCosts(0.001, 0.0)
    lone = [replace(each, arrival_s=10.0 * place) for place, each in enumerate(trace)]
    expected = {each.index: each for each in simulate(stage, "coupled", lone, host).outcomes}
    warm_up = [
        replace(
            expected[index],
            ttft_s=(expected[index].ttft_s or 0.0) + added_s,
            prompt_tokens=each.text_tokens + 7,
            media_tokens=7,
        )
        for index, (each, added_s) in enumerate(zip(trace, (0.9, 0.01, 0.02, 0.06), strict=True))
    ]
    found = with_pictures(host, stage, "coupled", trace, warm_up)
    assert found == HostCosts(0.001, 0.0, pytest.approx(0.02))
    assert with_pictures(host, stage, "coupled", trace, []) == host
    late = {each.index: each for each in simulate(stage, "coupled", lone, found).outcomes}
    for index, each in expected.items():
        assert late[index].start_s == pytest.approx(each.start_s)
        assert (late[index].ttft_s, late[index].end_s) == pytest.approx(
            ((each.ttft_s or 0.0) + 0.02, each.end_s + 0.02)
        )


def test_what_the_host_adds_to_a_step(tmp_path: Path) -> None:
    trace, stage = make_trace(SPEC, seed=1), make_stage(options("emulated", "--instances", "2"), tmp_path)
    profile = load_profile("a800-qwen2.5-vl-7b")
    alone_s, step_s = profile.prefill_s(900), profile.step.decode_step_s(1, 904)
    times = [(alone_s + 0.01, step_s + added_s) for added_s in (0.001, 0.002, 0.009)]
    warm_up = [
        Outcome(0, "text", 0.0, 1.0, ttft_s=ttft_s, tpot_s=tpot_s, prompt_tokens=900, output_tokens=8)
        for ttft_s, tpot_s in times
    ]
    host = host_costs(stage, warm_up)
    assert host == HostCosts(pytest.approx(0.008), pytest.approx(0.002))
    quick, slow = (
        simulate(stage, "coupled", trace[:1], each).outcomes for each in (HostCosts(0.0, 0.0), host)
    )
    assert slow[0].tpot_s == pytest.approx((quick[0].tpot_s or 0.0) + 0.002)
    assert slow[0].ttft_s == pytest.approx((quick[0].ttft_s or 0.0) + 0.01, abs=1e-4)


def planned_instance(name: str, decodes: Seconds, prefills: Seconds) -> PlannedInstance:
    present = Assignment(("prefill",), "shared")
    return PlannedInstance(
        name, present, None, "serving", 0.0, False, False, "", decodes, prefills, Seconds(0.0, 0.0)
    )


def test_a_pace_is_of_the_work_between_two_plans() -> None:
    nothing = Seconds(0.0, 0.0)
    before = ClusterPlan("emp", 1, (planned_instance("a", Seconds(3.0, 1.0), nothing),), 0, 0, ())
    later = (
        planned_instance("a", Seconds(5.0, 2.0), nothing),
        planned_instance("b", Seconds(1.0, 1.0), nothing),
    )
    pace = pace_between(before, replace(before, instances=later))
    assert (pace.decodes, pace.prefills, pace.encodes) == (1.5, 1.0, 1.0)


def test_a_slower_pace_is_a_slower_device(tmp_path: Path) -> None:
    profile = load_profile("a800-qwen2.5-vl-7b")
    slow = Pace(decodes=2.0, prefills=2.0, encodes=3.0).of(profile)
    assert slow.prefill_s(900, 700) == pytest.approx(2 * profile.prefill_s(900, 700))
    assert slow.encode.encode_s(700) == pytest.approx(3 * profile.encode.encode_s(700))
    trace, stage = make_trace(SPEC, seed=1), make_stage(options("emulated", "--instances", "2"), tmp_path)
    text = [next(each for each in trace if each.source == "text")]
    none = HostCosts(0.0, 0.0)
    quick, late = (
        simulate(stage, "coupled", text, none, each).outcomes for each in (Pace(), Pace(decodes=2.0))
    )
    assert late[0].tpot_s == pytest.approx(2 * (quick[0].tpot_s or 0.0))


def test_prompts_are_as_long_as_counted() -> None:
    trace = make_trace(SPEC, seed=1)[:2]
    counted = Outcome(1, "image", 0.0, 1.0, prompt_tokens=100, media_tokens=64, output_tokens=8)
    failed = Outcome(0, "text", 0.0, 1.0, error="UNAVAILABLE: gone")
    assert [each.text_tokens for each in as_sent(trace, [counted, failed])] == [trace[0].text_tokens, 36]


def test_both_sides_make_as_many_tokens_of_pictures(tmp_path: Path) -> None:
    """A model folder whose processor cuts pictures smaller would look like a simulator that is too slow."""
    stage = make_stage(options("emulated"), tmp_path)
    trace = [replace(each, arrival_s=0.0) for each in make_trace(SPEC, seed=1) if each.pictures][:2]
    counted = [
        Outcome(
            index=index,
            kind="image",
            start_s=0.0,
            end_s=1.0,
            media_tokens=sum(-(-item.width_px // 28) * -(-item.height_px // 28) for item in each.pictures),
        )
        for index, each in enumerate(trace)
    ]
    check_pictures(stage, trace, counted)
    cut = replace(counted[1], media_tokens=counted[1].media_tokens - 1)
    check_pictures(stage, trace, [counted[0], replace(cut, error="UNAVAILABLE: gone")])
    with pytest.raises(ValueError, match=r"^model: its processor makes"):
        check_pictures(stage, trace, [counted[0], cut])


def test_a_shorter_trace_keeps_its_burst() -> None:
    spec = trace_spec(options("emulated", "--duration", "20", "--image-rate", "3"))
    assert (spec.burst_start_s, spec.burst_s, spec.image_rate) == (6.0, 6.0, 3.0)


def test_the_clock_of_the_devices_is_slowed_and_policies_know(tmp_path: Path) -> None:
    """By the time scale, not by a slowed profile: slices of encoding last as long as on the true device."""
    stage = make_stage(options("emulated", "--time-scale", "2"), tmp_path)
    assert (stage.plan.devices, stage.plan.time_scale) == (("emulated:a800-qwen2.5-vl-7b",), 2.0)
    assert (stage.num_instances, stage.plan.slo) == (8, "2.0,0.1")
    slow, usual = load_profile(stage.plan.profile or ""), load_profile("a800-qwen2.5-vl-7b")
    assert slow.prefill_s(900, 700) == pytest.approx(2 * usual.prefill_s(900, 700))
    assert slow.encode.encode_s(700) == pytest.approx(2 * usual.encode.encode_s(700))
    assert slow.kv_move.move_s(10**9) == pytest.approx(2 * usual.kv_move.move_s(10**9))


def test_the_simulator_is_not_slowed(tmp_path: Path) -> None:
    """What it says of a trace does not depend on how slowly the live cluster plays it."""
    trace, host = make_trace(SPEC, seed=1)[:60], HostCosts(0.001, 0.0002)
    found = [
        simulate(make_stage(options("emulated", "--time-scale", scale), tmp_path), "emp", trace, host)
        for scale in ("1", "4")
    ]
    assert found[0] == found[1]


def test_only_emulated_devices_can_be_slower(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="time-scale"):
        make_stage(options("computed", "--time-scale", "2"), tmp_path)


def test_differences_are_relative_to_the_live_side() -> None:
    assert fidelity.difference(10.0, 11.0) == pytest.approx(0.1)
    assert fidelity.difference(0.0, 0.0) == 0.0
    compared = {"difference": {"ttft_ms.p50": -0.11, "tpot_ms.p50": 0.1, "goodput_per_s": 0.0}}
    by_kind = {f"{kind}.ttft_ms.p50": 0.2 for kind in ("text", "image")}
    assert fidelity.misses("emulated", compared) == ["ttft_ms.p50 -11.0%"]
    assert not fidelity.misses("computed", {"difference": compared["difference"] | by_kind})
    assert fidelity.misses("computed", compared)[0] == "text.ttft_ms.p50 is missing"


def test_tables() -> None:
    side = {"ttft_ms": {"p50": 10.0}, "tpot_ms": {"p50": 2.0}, "goodput_per_s": 1.0, "switches": 0}
    pace = {"decodes": 1.0, "prefills": 1.1, "encodes": 1.2}
    one = {
        "host_ms": 1.0,
        "host_step_ms": 0.1,
        "host_pictures_ms": 5.0,
        "pace": pace,
        "live": side,
        "simulated": side,
    }
    compared = {"emp": one | {"difference": {"ttft_ms.p50": 0.0}}}
    assert fidelity.build_table("emulated", compared).row_count == 8
    assert [column.header for column in elastic.build_table({"emp": [side]}).columns][1:] == ["emp"]


def test_ratios_are_of_the_same_round() -> None:
    """A machine half as fast in the second round changes both sides, and no ratio."""
    rounds = {
        "coupled": [{"text": {"ttft_ms": {"p90": each}}} for each in (100.0, 200.0, 120.0)],
        "emp": [{"text": {"ttft_ms": {"p90": each}}} for each in (80.0, 160.0, 240.0)],
    }
    assert elastic.ratios_to_first(rounds) == {"emp / coupled": {"text.ttft_ms.p90": pytest.approx(0.8)}}
    table = elastic.build_table(rounds)
    row = next(index for index, cell in enumerate(table.columns[0].cells) if cell == "text TTFT p90 ms")
    assert [list(column.cells)[row] for column in table.columns][1:] == ["120", "160", "0.80x"]


def test_every_second_round_goes_back_the_way_the_first_came() -> None:
    assert [elastic.in_turn(["a", "b", "c"], number) for number in range(3)] == [
        ["a", "b", "c"],
        ["c", "b", "a"],
        ["a", "b", "c"],
    ]
