"""What --allow-host, --max-connections and --max-calls become."""

from pathlib import Path

import pytest

import cli.coordinator
import cli.serve_http
from cli.launch.plan import LaunchPlan
from coordinator.config import CoordinatorConfig
from coordinator.front.settings import FrontSettings
from tests.cli.conftest import RunCli


def test_the_coordinator_is_told_by_up(run_cli: RunCli, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[CoordinatorConfig] = []
    monkeypatch.setattr(cli.coordinator, "serve", lambda config, _tell: served.append(config))
    plan = LaunchPlan("c", model, allow_hosts=("*.a.example", "b"), max_connections=7, max_calls=8)
    assert LaunchPlan.from_json(plan.to_json()) == plan
    assert run_cli("coordinator", "--model", model, *plan.door_words).exit_code == 0
    assert run_cli("coordinator", "--model", model).exit_code == 0
    assert [config.allow_hosts for config in served] == [plan.allow_hosts, ()]
    assert [(config.max_connections, config.max_calls) for config in served] == [(7, 8), (4096, 4096)]


def test_how_long_it_waits_is_told_by_up_as_well(
    run_cli: RunCli, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[CoordinatorConfig] = []
    monkeypatch.setattr(cli.coordinator, "serve", lambda config, _tell: served.append(config))
    plan = LaunchPlan("c", model, max_waiting=5, heartbeat_timeout=2.5, resume_ttl=0)
    assert LaunchPlan.from_json(plan.to_json()) == plan
    assert run_cli("coordinator", "--model", model, *plan.door_words).exit_code == 0
    (config,) = served
    assert (config.max_waiting, config.heartbeat_timeout_s, config.resume.ttl_s) == (5, 2.5, 0)


def test_up_takes_several(model: Path) -> None:
    from cli.up import make_plan

    given = {"http_port": None, "http": True, "port": 0, "log_level": "info", "cores": None, "device": "cpu"}
    plan = make_plan(name="c", model=model, model_name="", instances=None, allow_host=["a", "b"], **given)
    assert plan.allow_hosts == ("a", "b")


def test_serve_http_takes_several(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[FrontSettings] = []

    async def serve(settings: FrontSettings, _num_workers: int, **_how: bool) -> None:
        served.append(settings)

    monkeypatch.setattr(cli.serve_http, "_serve", serve)
    words = ("--allow-host", "a", "--allow-host", "*", "--max-connections", 7)
    assert run_cli("serve-http", *words).exit_code == 0
    assert (served[0].allow_hosts, served[0].max_connections) == (("a", "*"), 7)


@pytest.mark.parametrize("command", ["coordinator", "up", "serve-http"])
def test_what_is_no_name_is_wrong_usage(run_cli: RunCli, model: Path, command: str) -> None:
    words = () if command == "serve-http" else ("--model", model)
    result = run_cli(command, *words, "--allow-host", "http://a")
    assert result.exit_code == 2
    assert "allow_hosts: 'http://a' is no host name" in result.stderr
