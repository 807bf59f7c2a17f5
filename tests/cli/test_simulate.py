from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import build_app
from core.profile_file import write_profile
from simulator.result import RoleSpan
from tests.simulator.profiles import ROUND
from tests.simulator.test_scenario import SCENARIO


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    write_profile(ROUND, tmp_path / "round.json")
    (tmp_path / "s.toml").write_text(SCENARIO.replace('discipline = "whole"', "encoder_cache = true"))
    return tmp_path / "s.toml"


def simulate(*options: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(build_app(["simulate"]), ["simulate", *map(str, options), "--jobs", "1"])
    return result.exit_code, result.stdout, result.stderr


def test_tables_show_every_set_and_rate(scenario: Path) -> None:
    code, out, _ = simulate(scenario)
    assert code == 0
    for word in ("A small one: 2 instances", "coupled", "halves", "req/s at 90%", "goodput", "2x"):
        assert word in out


def test_tables_show_what_caches_spared(tmp_path: Path) -> None:
    write_profile(ROUND, tmp_path / "round.json")
    with_caches = SCENARIO.replace('discipline = "whole"', "unified_cache = true")
    repeated = with_caches.replace("slo.text", "workload.repeats = { share = 0.9, most = 2 }\nslo.text")
    (tmp_path / "s.toml").write_text(repeated)
    code, out, _ = simulate(tmp_path / "s.toml", "--set", "coupled")
    assert code == 0
    assert "embeddings cached" in out
    code, out, _ = simulate(tmp_path / "s.toml", "--set", "halves")
    assert "embeddings cached" not in out  # it has none


def test_json_holds_outcomes_and_references(scenario: Path) -> None:
    code, out, _ = simulate(scenario, "--json", "--set", "coupled", "--seed", 3)
    found = json.loads(out)
    assert code == 0
    (outcome,) = found["outcomes"]
    assert (outcome["policy_set"], outcome["seed"]) == ("coupled", 3)
    assert [each["rate_rps"] for each in outcome["summaries"]][:1] == [1.0]
    assert found["references"] == []  # the other set was not run
    assert simulate(scenario, "--json", "--set", "coupled", "--seed", 3)[1] == out


def test_rates_and_scales_may_be_others(scenario: Path) -> None:
    options = ("--json", "--set", "coupled", "--rate", 3, "--rate", 2, "--scale", 4)
    code, out, _ = simulate(scenario, *options)
    assert code == 0
    for outcome in json.loads(out)["outcomes"]:
        assert {2.0, 3.0} <= {each["rate_rps"] for each in outcome["summaries"]}
        assert list(outcome["best_rps"]) == ["4.0"]


def test_processes_give_what_one_gives(scenario: Path) -> None:
    arguments = ["simulate", str(scenario), "--json"]
    runs = [
        CliRunner().invoke(build_app(["simulate"]), [*arguments, "--jobs", jobs]).stdout
        for jobs in ("1", "2")
    ]
    assert json.loads(runs[0]) == json.loads(runs[1])


def test_unloaded_targets_are_ten_times_the_medians(scenario: Path) -> None:
    code, out, _ = simulate(scenario, "--unloaded", "coupled")
    assert code == 0
    assert "slo.text = { ttft_s = 0.1" in out
    assert "tpot_s = 0.11000 }" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "none"], "set: 'none' is not in the scenario (there: coupled, halves)"),
        (["--case", "none"], "case: 'none' is not in the scenario (there: one)"),
        (["--rate", "0"], "rate: should be a finite number above zero, is 0"),
        (["--scale", "-1"], "scale: should be a finite number above zero, is -1"),
        (["--unloaded", "none"], "unloaded: no set of the scenario is named 'none'"),
    ],
)
def test_names_that_are_not_there_are_wrong_usage(scenario: Path, options: list[str], message: str) -> None:
    code, _, err = simulate(scenario, *options)
    assert code == 2
    assert message in err


def test_a_broken_scenario_is_wrong_usage(scenario: Path) -> None:
    scenario.write_text(scenario.read_text().replace("instances = 2", "instances = -2"))
    code, _, err = simulate(scenario)
    assert code == 2
    assert "s.toml: cluster.instances: should not be negative, is -2" in err


def test_a_picture_needs_matplotlib(scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = simulate(scenario, "--plot", tmp_path / "p.png")
    assert code == 2
    assert "elasticmm[plot]" in err


def test_a_picture_is_drawn(scenario: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    code, _, _ = simulate(scenario, "--plot", tmp_path / "p.png")
    assert code == 0
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"


def test_the_gantt_picture_has_roles_and_utilisation_of_each_instance() -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    from cli.simulation.plot import gantt

    spans = (
        RoleSpan("i0", 0.0, 5.0, "shared:epd"),
        RoleSpan("i0", 5.0, 5.1, ""),
        RoleSpan("i1", 0.0, 9.0, "text:pd"),
    )
    figure, axis = pyplot.subplots()
    gantt(axis, spans, "a run", {"i0": 0.631, "i1": 0.2})
    assert [each.get_text() for each in axis.get_yticklabels()] == ["i0, 63% busy", "i1, 20% busy"]
    assert [each.get_text() for each in axis.get_legend().get_texts()] == ["shared:epd", "text:pd"]
    assert len(axis.patches) == 2  # nothing is drawn of a switch
    pyplot.close(figure)
