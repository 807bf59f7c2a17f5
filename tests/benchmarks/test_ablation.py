from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.ablation import actors, figures, make_stage, make_trace, with_popular
from cli.load.outcomes import Outcome
from cli.load.workload import Kind
from coordinator.policy.scheduler import LATE_WAIT_S
from core.families import ARCHITECTURES
from core.profile_file import load_profile
from simulator.scenario import CaseSpec, Scenario, SetSpec, read_scenario

SCENARIO = read_scenario(Path("scenarios/cache.toml"))


def case_of(scenario: Scenario, name: str) -> CaseSpec:
    return next(each for each in scenario.cases if each.name == name)


def set_of(scenario: Scenario, name: str) -> SetSpec:
    return next(each for each in scenario.sets if each.name == name)


CASE = case_of(SCENARIO, "sharegpt-4o, repeats")


def answers(kind: Kind, *ttfts_s: float) -> Sequence[Outcome]:
    return [Outcome(at, kind, 0.0, 2.0, ttft_s=ttft_s, tpot_s=0.01) for at, ttft_s in enumerate(ttfts_s)]


@pytest.mark.parametrize(
    ("name", "orders", "encoding", "has_cache"),
    [
        ("own pictures first", ("arrival", "arrival"), "blocking", False),
        ("own pictures first, cache", ("arrival", "arrival"), "blocking", True),
        ("non-blocking", ("text-first", "shortest"), "pipelined", False),
        ("both", ("text-first", "shortest"), "pipelined", True),
    ],
)
def test_live_engines_do_what_the_set_says(
    name: str, orders: tuple[str, str], encoding: str, has_cache: bool
) -> None:
    found = actors(set_of(SCENARIO, name))
    assert (found.prompt_order, found.encode_order) == orders
    assert (found.encoding, found.prefix_cache) == (encoding, has_cache)


@pytest.mark.parametrize("name", ["emp alone", "unified cache", "both, unaware"])
def test_what_no_live_engine_does_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"set: '{name}'"):
        actors(set_of(SCENARIO, name))


def test_the_clock_of_the_devices_is_slowed_and_policies_know(tmp_path: Path) -> None:
    """By the time scale, not by a slowed profile: slices of encoding last as long as on the true device."""
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [ARCHITECTURES[0]]}))
    for name in ("tokenizer.json", "preprocessor_config.json"):
        (tmp_path / name).write_text("{}")
    for name in ("model.safetensors", "chat_template.jinja"):
        (tmp_path / name).touch()
    stage = make_stage(SCENARIO, CASE, tmp_path, 5.0, tmp_path)
    assert (stage.plan.devices, stage.plan.time_scale) == ((f"emulated:{CASE.profile}",), 5.0)
    assert stage.plan.profile is not None
    reckoned, own = load_profile(stage.plan.profile), load_profile(CASE.profile)
    assert reckoned.prefill_s(500) == pytest.approx(5 * own.prefill_s(500))
    assert reckoned.encode.encode_s(500) == pytest.approx(5 * own.encode.encode_s(500))
    assert stage.plan.slo == "0.5835,0.53365,4.4725"
    assert stage.plan.limits.late_wait == 5 * LATE_WAIT_S


def test_requests_are_held_against_the_targets_of_their_kind() -> None:
    outcomes = [*answers("text", 0.1, 0.2), *answers("image", 0.2, 0.8)]
    found = figures(outcomes, CASE)
    assert found["good_share"] == 0.75
    assert found["goodput_per_s"] == pytest.approx(1.5)
    assert (found["text"]["good_share"], found["image"]["good_share"]) == (0.5, 1.0)


def test_fewer_popular_pictures_repeat_sooner() -> None:
    def num_again(case: CaseSpec) -> int:
        digests = [
            picture.digest for each in make_trace(case, Path(), 96.0, 5.0, 1) for picture in each.pictures
        ]
        return len(digests) - len(set(digests))

    assert num_again(with_popular(CASE, 50)) > 1.3 * num_again(CASE)
    assert with_popular(CASE, None) is CASE
    with pytest.raises(ValueError, match="popular: no picture repeats"):
        with_popular(replace(CASE, workload=replace(CASE.workload, repeats=None)), 50)
