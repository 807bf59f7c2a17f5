"""What --allow-host and the options of limits become."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

import cli.coordinator
import cli.serve_http
from cli.launch.plan import LaunchPlan
from cli.limits import Limits
from coordinator.config import CoordinatorConfig, MediaLimits
from coordinator.front.settings import FrontSettings
from tests.cli.conftest import RunCli


def test_the_coordinator_is_told_by_up(run_cli: RunCli, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[CoordinatorConfig] = []
    monkeypatch.setattr(cli.coordinator, "serve", lambda config, _tell: served.append(config))
    limits = Limits(max_connections=7, max_calls=8)
    plan = LaunchPlan("c", model, allow_hosts=("*.a.example", "b"), limits=limits)
    assert LaunchPlan.from_json(plan.to_json()) == plan
    assert run_cli("coordinator", "--model", model, *plan.door_words).exit_code == 0
    assert run_cli("coordinator", "--model", model).exit_code == 0
    assert [config.allow_hosts for config in served] == [plan.allow_hosts, ()]
    assert [(config.max_connections, config.max_calls) for config in served] == [(7, 8), (4096, 4096)]


def test_every_limit_reaches_the_coordinator(
    run_cli: RunCli, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[CoordinatorConfig] = []
    monkeypatch.setattr(cli.coordinator, "serve", lambda config, _tell: served.append(config))
    limits = Limits(
        max_waiting=1,
        max_connections=2,
        max_calls=3,
        max_message_mib=4,
        max_media=0,
        max_media_mib=0.5,
        max_media_megapixels=1.5,
        media_store_mib=6,
        url_timeout=7,
        resume_ttl=8,
        late_wait=9,
    )
    assert None not in asdict(limits).values()
    plan = LaunchPlan("c", model, limits=limits, heartbeat_timeout=2.5)
    assert LaunchPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert run_cli("coordinator", "--model", model, *plan.door_words).exit_code == 0
    (config,) = served
    assert (config.max_waiting, config.max_connections, config.max_calls) == (1, 2, 3)
    assert (config.message_bytes, config.media_per_request) == (4 * 2**20, 0)
    assert config.media == MediaLimits(2**19, 1_500_000, 6 * 2**20, url_timeout_s=7)
    assert (config.resume.ttl_s, config.late_wait_s, config.heartbeat_timeout_s) == (8, 9, 2.5)


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
