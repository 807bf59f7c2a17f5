"""What `down` and `logs` say where there is nothing to end or to show."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.state import StateDir
from tests.cli.conftest import RunCli


@pytest.mark.parametrize(("command", "code"), [("down", 3), ("logs", 1)])
def test_nothing_there_is_said_as_json_too(run_cli: RunCli, tmp_path: Path, command: str, code: int) -> None:
    result = run_cli(command, "--state-dir", tmp_path, "--json")
    assert result.exit_code == code
    said = json.loads(result.stdout)["error"]["message"]
    assert str(tmp_path) in said
    assert result.stderr == f"elasticmm: {said}\n"


@pytest.mark.parametrize("command", ["down", "status", "doctor"])
def test_a_record_that_cannot_be_read_is_named(run_cli: RunCli, tmp_path: Path, command: str) -> None:
    StateDir(tmp_path).record_path.write_text("garbage")
    result = run_cli(command, "--state-dir", tmp_path)
    assert result.exit_code in (1, 2)
    assert "cluster.json: is no record of a cluster" in result.stderr
