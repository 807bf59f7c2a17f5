"""What --metrics-port and --log-format become."""

import logging
from pathlib import Path

import pytest

import cli.coordinator
from cli.launch.plan import LaunchPlan
from coordinator.config import CoordinatorConfig
from core.log_lines import JsonLines
from tests.cli.conftest import RunCli


@pytest.fixture(autouse=True)
def formatters(monkeypatch: pytest.MonkeyPatch) -> list[logging.Formatter | None]:
    """Of the logs that were started."""
    found: list[logging.Formatter | None] = []
    monkeypatch.setattr(logging, "basicConfig", lambda **given: found.append(given["handlers"][0].formatter))
    return found


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[CoordinatorConfig]:
    served: list[CoordinatorConfig] = []
    monkeypatch.setattr(cli.coordinator, "serve", lambda config, _tell: served.append(config))
    return served


def test_the_coordinator_is_told_by_up(
    run_cli: RunCli, model: Path, served: list[CoordinatorConfig], formatters: list[object]
) -> None:
    plan = LaunchPlan("c", model, metrics_port=9400, log_format="json", otlp_endpoint="http://there:4317")
    assert run_cli("coordinator", "--model", model, *plan.watch_words).exit_code == 0
    assert [(config.metrics_port, config.log_format) for config in served] == [(9400, "json")]
    plan = LaunchPlan("c", model, metrics_port=0)
    assert run_cli("coordinator", "--model", model, *plan.watch_words).exit_code == 0
    assert served[1].metrics_port == 0
    assert served[0].otlp_endpoint == "http://there:4317"
    assert [type(each) for each in formatters] == [JsonLines, logging.Formatter]


def test_text_and_no_listener_are_the_defaults(
    run_cli: RunCli, model: Path, served: list[CoordinatorConfig], formatters: list[object]
) -> None:
    for words in ((), LaunchPlan("c", model).watch_words):
        assert run_cli("coordinator", "--model", model, *words).exit_code == 0
    assert [(config.metrics_port, config.log_format) for config in served] == [(None, "text")] * 2
    assert [type(each) for each in formatters] == [logging.Formatter] * 2


@pytest.mark.parametrize("command", ["coordinator", "up"])
def test_an_unknown_format_is_wrong_usage(run_cli: RunCli, model: Path, command: str) -> None:
    result = run_cli(command, "--model", model, "--log-format", "xml")
    assert result.exit_code == 2
    assert "log_format: 'xml'" in result.stderr
