"""What happens where a command cannot reach the cluster it is told."""

import json
from pathlib import Path

import pytest

import cli.endpoint
from cli.state import ClusterRecord, StateDir
from tests.cli.conftest import RunCli
from tests.clients.fake_cluster import FakeCluster

COMMANDS = (
    ("status",),
    ("migrate", "r"),
    ("cache", "stats"),
    ("cache", "flush"),
    ("cache", "explain", "r"),
    ("generate", "Hi"),
)


@pytest.mark.parametrize("words", COMMANDS[:-1])
def test_a_missing_token_file_is_wrong_usage(run_cli: RunCli, words: tuple[str, ...]) -> None:
    result = run_cli(*words, "--token-file", "/no/such")
    assert result.exit_code == 2
    assert "token-file: cannot read /no/such" in result.stderr


@pytest.mark.parametrize("words", COMMANDS)
def test_an_empty_token_written_down_is_told(
    run_cli: RunCli, cluster: FakeCluster, tmp_path: Path, words: tuple[str, ...]
) -> None:
    state = StateDir(tmp_path / "state")
    state.path.mkdir()
    state.write_record(ClusterRecord("c", cluster.address, "/m", "coupled", ()))
    state.token_path.touch()
    result = run_cli(*words, "--state-dir", state.path)
    assert result.exit_code == 2
    assert str(state.token_path) in result.stderr


@pytest.mark.parametrize("named", [("--name", "other"), ("--state-dir", "other")])
@pytest.mark.parametrize("words", [*COMMANDS, ("drain", "d-0"), ("chat",), ("bench", "--requests", "1")])
def test_who_names_a_cluster_never_reaches_another(
    run_cli: RunCli,
    cluster: FakeCluster,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    named: tuple[str, str],
) -> None:
    monkeypatch.setattr(cli.endpoint, "DEFAULT_PORT", int(cluster.address.rpartition(":")[2]))
    result = run_cli(*words, *named)
    assert result.exit_code == 3
    assert "no cluster is up on " in result.stderr
    assert not cluster.requests
    told = json.loads(run_cli(*words, *named, "--json").stdout)
    assert "no cluster is up on " in told["error"]["message"]


@pytest.mark.parametrize("words", COMMANDS)
def test_nobody_at_the_address_has_a_code_of_its_own(run_cli: RunCli, words: tuple[str, ...]) -> None:
    result = run_cli(*words, "--address", "127.0.0.1:1")
    assert result.exit_code == 3
    assert "is the cluster up?" in result.stderr
