import json
from pathlib import Path

import pytest

from cli.status import duration
from core.access import write_token
from tests.cli.conftest import RunCli
from tests.clients.fake_cluster import TOKEN, FakeCluster


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    write_token(tmp_path / "token", TOKEN)
    return tmp_path / "token"


def test_shows_every_column(run_cli: RunCli, cluster: FakeCluster, token_file: Path) -> None:
    result = run_cli("status", "--address", cluster.address, "--token-file", token_file)
    assert result.exit_code == 0
    for word in (
        "e1pd1",
        "2 running",
        "pd-0",
        "shared",
        "prefill+decode",
        "cpu:0",
        "sdpa",
        "90/100",
        "dec 1",
        "1m01s",
    ):
        assert word in result.output


def test_json_is_one_object(run_cli: RunCli, cluster: FakeCluster, token_file: Path) -> None:
    result = run_cli("status", "--json", "--address", cluster.address, "--token-file", token_file)
    status = json.loads(result.stdout)
    assert [instance["id"] for instance in status["instances"]] == ["e-0", "pd-0"]
    assert status["instances"][0]["attention_backend"] == "sdpa"


def test_without_the_token_it_fails(run_cli: RunCli, cluster: FakeCluster) -> None:
    result = run_cli("status", "--address", cluster.address)
    assert result.exit_code == 1
    assert "token" in result.stderr


def test_nobody_there(run_cli: RunCli) -> None:
    result = run_cli("status", "--address", "127.0.0.1:1")
    assert result.exit_code == 3
    assert "elasticmm up" in result.stderr


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.9, "59s"), (185, "3m05s"), (7800, "2h10m"), (443_000, "5d03h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
