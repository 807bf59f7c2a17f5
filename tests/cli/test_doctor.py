import json
from pathlib import Path

import pytest

from cli.checkup import shared_memory
from cli.checkup.finding import note, problem
from cli.doctor import lines
from tests.cli.conftest import RunCli


def test_json_is_one_object_and_says_what_is_wrong(run_cli: RunCli, tmp_path: Path) -> None:
    result = run_cli("doctor", "--json", "--model", tmp_path)
    report = json.loads(result.stdout)
    assert (result.exit_code, report["ok"]) == (1, False)
    wrong = [each for each in report["findings"] if each["level"] == "problem"]
    assert [each["subject"] for each in wrong] == ["model"]
    assert "config.json" in wrong[0]["said"]
    subjects = {each["subject"] for each in report["findings"]}
    assert {"torch", "host", "/dev/shm", "left-over segments", "native steps"} <= subjects


def test_a_well_host(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "_LEAST_FREE_BYTES", 0)
    result = run_cli("doctor")
    assert result.exit_code == 0, result.output
    assert "ok    python: 3." in result.output


def test_a_line_and_its_mend() -> None:
    assert list(lines(problem("x", "is broken", "repair it"))) == [
        "BAD   x: is broken",
        "      mend: repair it",
    ]
    assert next(lines(note("x", "is odd", "look"))).startswith("note  x")
