from __future__ import annotations

from pathlib import Path

import pytest

from core.profile_file import write_profile
from simulator.scenario import Scenario, ScenarioError, SetSpec, aims, read_scenario
from tests.simulator.profiles import ROUND

SCENARIO = """
name = "small"
title = "A small one"
rates_rps = [1.0, 2.0]

[cluster]
instances = 2

[[sets]]
name = "coupled"
discipline = "whole"

[[sets]]
name = "halves"
policy = "static:equal"

[[cases]]
name = "one"
profile = "round.json"
workload.mix = { duration_s = 20.0 }
slo.text = { ttft_s = 1.0, tpot_s = 0.1 }
slo.sharegpt-4o = { ttft_s = 2.0, tpot_s = 0.05 }

[[references]]
case = "one"
measure = "goodput"
value = 2.0
better = "halves"
worse = ["coupled"]
source = "a paper"
"""


def read(folder: Path, content: str = SCENARIO) -> Scenario:
    write_profile(ROUND, folder / "round.json")
    (folder / "s.toml").write_text(content)
    return read_scenario(folder / "s.toml")


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    scenario = read(tmp_path)
    assert scenario.seeds == (1,)
    assert [variant.name for variant in scenario.variants] == ["as is"]
    assert scenario.cases[0].workload.mix is not None
    assert scenario.cases[0].workload.mix.text_share == 0.5
    assert [each.policy_name for each in scenario.sets] == ["coupled", "static:equal"]


def test_baselines_are_served_in_order_of_arrival_unless_told_otherwise() -> None:
    asked = [("coupled", None), ("emp", None), ("static:equal", None), ("fixed", None)]
    asked += [("coupled", "text-first"), ("emp", "chunked")]
    found = [SetSpec("a", policy, discipline=told).engine_discipline for policy, told in asked]
    assert found == ["chunked", "text-first", "text-first", "text-first", "text-first", "chunked"]


def test_policies_aim_for_the_strictest_targets(tmp_path: Path) -> None:
    slo = aims(read(tmp_path).cases[0])
    assert (slo.ttft_s, slo.multimodal_ttft_s, slo.tpot_s) == (1.0, 2.0, 0.05)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("instances = 2", "instances = 0", "cluster.instances: should be more than zero"),
        ("instances = 2", "", "cluster.instances: is missing"),
        ("instances = 2", "instance = 2", "cluster.instance: is no known key"),
        (
            "instances = 2",
            "instances = 2\nswitch_s = 30.0",
            "cluster.switch_s: should be under 30: what takes",
        ),
        ("[1.0, 2.0]", "[-1.0, 2.0]", r"rates_rps\[0\]: should not be negative"),
        ("[1.0, 2.0]", "[2.0, 1.0]", r"cases\[0\].rates_rps: should rise"),
        ("[1.0, 2.0]", "[]", r"cases\[0\].rates_rps: is empty, and so is"),
        ("20.0", '"20 s"', r"cases\[0\].workload.mix.duration_s: should be a number"),
        ("duration_s", "duration_ms", r"cases\[0\].workload.mix.duration_ms: is no known key"),
        ("20.0", "0.0", r"cases\[0\].workload.mix.duration_s: should be more than zero"),
        ('"halves"', '"coupled"', r"sets\[1\].name: 'coupled' stands there twice"),
        ("static:equal", "static:odd", r"sets\[1\]: policy 'static:odd' is not one of emp, coupled, "),
        (
            '"static:equal"',
            '"static:equal"\ndiscipline = "whole"',
            r'sets\[1\].discipline: "whole" is for policies "coupled" and "replicas"',
        ),
        (
            '"static:equal"',
            '"static:equal"\nvariants = ["quick"]',
            r"sets\[1\].variants: 'quick' is none of the scenario's",
        ),
        ('"static:equal"', '"static:equal"\nseeds = [77]', r"sets\[1\].seeds: 77 is none of the scenario's"),
        (
            '"static:equal"',
            '"static:equal"\nunified_cache = true\nprefix_cache = true',
            r"sets\[1\].unified_cache: is both caches in one: leave out the others",
        ),
        ('"whole"', '"whole"\nunified_cache = true', r"sets\[0\].unified_cache: is not for discipline"),
        ('"whole"', '"whole"\nencoding = "inline"', r"sets\[0\].encoding: is not for discipline"),
        ('"whole"', '"half"', r"sets\[0\].discipline: should be one of text-first, chunked, whole"),
        ("round.json", "square.json", r"cases\[0\].profile: .*square.json: cannot be read"),
        ("slo.text", "slo.prose", r"cases\[0\].slo: has no targets for requests of source 'text'"),
        ("ttft_s = 1.0", "ttft_s = 0.0", r"cases\[0\].slo.text.ttft_s: should be more than zero"),
        ('"goodput"', '"badput"', r"references\[0\].measure: should be ttft or goodput"),
        ('worse = ["coupled"]', 'worse = ["triple"]', r"references\[0\]: no set is named 'triple'"),
        ("[[sets]]", "[[sets]", "is no TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in SCENARIO
    with pytest.raises(ScenarioError, match=f"s.toml: {message}"):
        read(tmp_path, SCENARIO.replace(old, new, 1) if old != '"halves"' else SCENARIO.replace(old, new))


def test_a_missing_scenario_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"none.toml: cannot be read"):
        read_scenario(tmp_path / "none.toml")


def test_shipped_scenarios_are_fine() -> None:
    folder = Path(__file__).parents[2] / "scenarios"
    names = {read_scenario(path).name for path in folder.glob("*.toml")}
    assert names >= {"paper", "bursts", "light"}
