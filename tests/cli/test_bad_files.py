"""Scenarios and profiles that cannot be used: one line with file and key, exit code 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.profile_file import format_profile
from tests.cli.bad_files import BINARY, LATIN, MIX, SCENARIO, Content, problem_of
from tests.cli.conftest import RunCli
from tests.simulator.profiles import ROUND


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "s.toml: cannot be read (Is a directory)"),
        (BINARY, "s.toml: is no TOML (not UTF-8)"),
        (LATIN, "s.toml: is no TOML (not UTF-8)"),
        ("", "s.toml: name: is missing"),
        ("a = 1\nb =", "s.toml: is no TOML (Invalid value (at end of document))"),
        ("a = 1\na = 2\n", "s.toml: is no TOML (Cannot overwrite a value (at line 2, column 6))"),
        ("a = " + "[" * 100_000, "s.toml: is no TOML (maximum recursion depth exceeded"),
        ("a = " + "9" * 5000, "s.toml: is no TOML (Exceeds the limit"),
    ],
)
def test_what_is_no_scenario(run_cli: RunCli, tmp_path: Path, content: Content, problem: str) -> None:
    assert problem_of(run_cli, tmp_path, {"s.toml": content}).startswith(problem)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "instances = 2",
            "instances = 20000",
            "cluster.instances: should be at most 10,000, is 20,000",
        ),
        ("[2.0]", "[2.0]\nrefine_steps = 99", "refine_steps: should be at most 20, is 99"),
        ("instances = 2", "instances = 1.5", "cluster.instances: should be a whole number, is 1.5"),
        ("instances = 2", "instances = 2\nswitch_ms = 100", "cluster.switch_ms: is no known key (known: "),
        ("instances = 2", "instances = 2\nswitch_s = 60", "cluster.switch_s: should be under 30: what takes"),
        ("instances = 2", "instances = 2\nswitch_s = nan", "cluster.switch_s: should be a finite number"),
        ("[2.0]", "2.0", "rates_rps: should be a list, is 2.0"),
        ("[2.0]", "[inf]", "rates_rps[0]: should be a finite number"),
        ("[2.0]", "[-2.0]", "rates_rps[0]: should not be negative, is -2.0"),
        ("[2.0]", "[0.0]", "cases[0].rates_rps[0]: should be more than zero, is 0"),
        ("[2.0]", '["2/s"]', "rates_rps[0]: should be a number, is '2/s'"),
        ("[2.0]", "[2.0]\nscales = []", "scales: should be more than zero, is 0"),
        ("[2.0]", "[2.0]\nseeds = [-1]", "seeds[0]: should not be negative, is -1"),
        (MIX, "workload = 3", "cases[0].workload: should be a table, is 3"),
        (MIX, 'workload.mix = { pictures = "text" }', "cases[0].workload.mix.pictures: 'text' is no set of"),
        (MIX, "workload.mix = { text_share = nan }", "cases[0].workload.mix.text_share: should be a finite"),
        (MIX, 'workload.trace = { format = "azure-llm" }', "cases[0].workload.trace.path: is missing"),
        ('"round.json"', '""', "cases[0].profile: : no profile of that name"),
    ],
)
def test_what_does_not_fit_in_a_scenario(
    run_cli: RunCli, tmp_path: Path, old: str, new: str, problem: str
) -> None:
    assert old in SCENARIO
    said = problem_of(run_cli, tmp_path, {"s.toml": SCENARIO.replace(old, new)})
    assert said.startswith(f"s.toml: {problem}")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--rate", "nan"], "rate: should be a finite number above zero, is nan"),
        (["--rate", "inf"], "rate: should be a finite number above zero, is inf"),
        (["--rate", "1e9"], "case 'one': rate_rps: 1e+09 for 5 s are over 10,000,000 requests"),
        (["--rate", "1e-9"], "case 'one': rate_rps: 1e-09 gives no request in that time"),
        (["--scale", "inf"], "scale: should be a finite number above zero, is inf"),
    ],
)
def test_what_does_not_fit_in_the_options(
    run_cli: RunCli, tmp_path: Path, options: list[str], problem: str
) -> None:
    assert problem_of(run_cli, tmp_path, {}, *options) == problem


@pytest.mark.parametrize("name", ["nowhere/x.png", "folder.png", "x.txt"])
def test_a_picture_that_could_not_be_written(run_cli: RunCli, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.png").mkdir()
    assert problem_of(run_cli, tmp_path, {}, "--plot", tmp_path / name).startswith(f"plot: {name} ")


def changed(path: str, value: object) -> str:
    whole = table = json.loads(format_profile(ROUND))
    *way, last = path.split(".")
    for name in way:
        table = table[name]
    table[last] = value
    return json.dumps(whole)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read (Is a directory)"),
        (BINARY, "is no JSON (not UTF-8)"),
        (LATIN, "is no JSON (not UTF-8)"),
        ("", "is no JSON (Expecting value: line 1 column 1 (char 0))"),
        ("[" * 100_000, "is no JSON (maximum recursion depth exceeded"),
        ('{"kv_tokens": ' + "9" * 5000 + "}", "is no JSON (Exceeds the limit"),
        ("[]", "should be a table, is []"),
        (changed("step.fixed_ms", 1.0), "step.fixed_ms: is no known key (known: fixed_s, bytes, flops)"),
        (changed("step.fixed_s", float("nan")), "step.fixed_s: should be a finite number"),
        (changed("step.fixed_s", float("inf")), "step.fixed_s: should be a finite number"),
        (changed("kv_move.bytes_per_s", 0.0), "kv_move.bytes_per_s: should be more than zero, is 0"),
        (changed("kv_move.bytes_per_s", "1 GB/s"), "kv_move.bytes_per_s: should be a number, is '1 GB/s'"),
        (changed("kv_tokens", 15), "kv_tokens: is under one block (16)"),
        (changed("cross_attention_share", 5.0), "cross_attention_share: should be from 0 to 1, is 5"),
    ],
)
def test_what_is_no_profile(run_cli: RunCli, tmp_path: Path, content: Content, problem: str) -> None:
    said = problem_of(run_cli, tmp_path, {"round.json": content})
    assert said.startswith(f"s.toml: cases[0].profile: round.json: {problem}")


def test_steps_that_take_no_time_are_no_profile(run_cli: RunCli, tmp_path: Path) -> None:
    whole = json.loads(format_profile(ROUND))
    free = dict.fromkeys(whole["step"]["bytes"], 0.0)
    whole["step"] = {"fixed_s": 0.0, "bytes": free, "flops": free}
    said = problem_of(run_cli, tmp_path, {"round.json": json.dumps(whole)})
    assert said.endswith("round.json: step: takes no time: all that a decode costs is zero")


@pytest.mark.parametrize("command", ["up", "coordinator"])
def test_commands_that_take_tenants_say_what_is_wrong_with_them(
    run_cli: RunCli, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("ELASTICMM_TOKEN", "t")
    path = tmp_path / "tenants.toml"
    path.write_text("tenants.a.cache_share = 2")
    result = run_cli(command, "--model", model, "--tenants", path)
    assert result.exit_code == 2
    assert result.stderr == f"elasticmm: {path}: tenants.a.cache_share: 2 is not between 0 and 1\n"


@pytest.mark.parametrize(
    "words",
    [
        ["up", "--device", "cpu", "--profile"],
        ["up", "--device"],
        ["coordinator", "--profile"],
        ["stage", "--coordinator", "here:1", "--device"],
    ],
)
def test_commands_that_take_a_profile_say_what_is_wrong_with_it(
    run_cli: RunCli, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setenv("ELASTICMM_TOKEN", "t")
    path = tmp_path / "costs.json"
    path.write_text(changed("step.fixed_s", -1))
    named = path if words[-1] == "--profile" else f"emulated:{path}"
    result = run_cli(*words, named, "--model", model)
    assert result.exit_code == 2
    assert result.stderr == f"elasticmm: {path}: step.fixed_s: should not be negative, is -1\n"
