"""Options out of a file."""

from pathlib import Path

import pytest

import cli.coordinator
import cli.stage
import cli.up
from cli.launch.plan import LaunchPlan
from coordinator.config import CoordinatorConfig
from tests.cli.conftest import RunCli


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[LaunchPlan]:
    plans: list[LaunchPlan] = []
    monkeypatch.setattr(cli.up, "_run_here", lambda plan, _state, **_how: plans.append(plan))
    return plans


def write(folder: Path, text: str) -> Path:
    file = folder / "settings.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_up_takes_its_options_from_a_file(
    run_cli: RunCli, model: Path, planned: list[LaunchPlan], tmp_path: Path
) -> None:
    file = write(
        tmp_path,
        f"""
        model = "{model}"
        topology = "e1p1d1"
        port = 7
        max_media = 3          # either way of writing it
        cache-ttl-s = 1.5
        allow-host = ["a", "b"]
        dashboard = false
        """,
    )
    result = run_cli("up", "--config", file, "--port", 8)
    assert result.exit_code == 0, result.stderr
    (plan,) = planned
    assert (plan.model, plan.topology, plan.limits.max_media) == (model, "e1p1d1", 3)
    assert (plan.cache_ttl_s, plan.allow_hosts, plan.dashboard) == (1.5, ("a", "b"), False)
    assert plan.port == 8, "the command line goes before the file"


def test_the_coordinator_takes_them_too(
    run_cli: RunCli, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    served: list[CoordinatorConfig] = []
    monkeypatch.setattr(cli.coordinator, "serve", lambda config, _tell: served.append(config))
    file = write(tmp_path, "policy = 'emp'\nmax-waiting = 9\n")
    assert run_cli("coordinator", "--model", model, "--config", file).exit_code == 0
    assert [(config.policy, config.max_waiting) for config in served] == [("emp", 9)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prot = 1", "prot: there is no such option, did you mean port?"),
        ("quite_another = 1", "quite_another: there is no such option"),
        ("port = true", "port: takes a value, not True"),
        ("dashboard = 1", "dashboard: takes true or false, not 1"),
        ("port = [1, 2]", "port: takes one value, not a list"),
        ("[port]\nnumber = 1", "port: takes a number or a text"),
        ("port = ", "settings.toml: Invalid value (at end of document)"),
        ("port = 99999", "'--port'"),
        ("config = 'a'", "config: there is no such option"),
    ],
)
def test_what_is_wrong_in_it_is_named(
    run_cli: RunCli, model: Path, planned: list[LaunchPlan], tmp_path: Path, text: str, said: str
) -> None:
    result = run_cli("up", "--model", model, "--config", write(tmp_path, text))
    assert (result.exit_code, planned) == (2, [])
    assert said in " ".join(result.stderr.split())


def test_a_file_that_is_not_there(run_cli: RunCli, tmp_path: Path) -> None:
    for command in ("up", "coordinator", "stage", "serve-http"):
        result = run_cli(command, "--config", tmp_path / "none.toml")
        assert result.exit_code == 2
        assert "none.toml" in result.stderr
