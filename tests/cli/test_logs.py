import json
import time
from pathlib import Path

import pytest

from cli.log_files import LogFile
from tests.cli.conftest import RunCli

EARLY, LATE = "2026-01-02 03:04:05,100", "2026-01-02 03:04:06,200"
TRACEBACK = "Traceback (most recent call last):\nValueError: odd"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "stages.log").write_text(
        f"{EARLY} d-0 INFO a: ready\n{LATE} d-1 ERROR a: broke\n{TRACEBACK}\n{LATE} d-10 INFO a: fine\n"
    )
    (tmp_path / "coordinator.log").write_text(f"{EARLY} INFO c: d-1 registered\n{LATE} INFO c: d-0 gone\n")
    return tmp_path


def test_parts_in_order_of_time(run_cli: RunCli, folder: Path) -> None:
    result = run_cli("logs", "--state-dir", folder)
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == [
        "coordinator", "stages", "coordinator", "stages", "stages", "stages", "stages"
    ]  # fmt: skip


def test_one_instance_with_its_traceback(run_cli: RunCli, folder: Path) -> None:
    lines = run_cli("logs", "--instance", "d-1", "--state-dir", folder).stdout.splitlines()
    assert [line.split()[-1] for line in lines] == ["registered", "broke", "last):", "odd"]


def test_json_and_limit(run_cli: RunCli, folder: Path) -> None:
    lines = run_cli("logs", "--json", "-n", 1, "--state-dir", folder).stdout.splitlines()
    assert [json.loads(line) for line in lines] == [
        {"part": "stages", "at": LATE, "text": f"{LATE} d-10 INFO a: fine"}
    ]


def test_follows_until_interrupted(run_cli: RunCli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [f"{LATE} INFO c: half", " a line\n", None]

    def sleep(_: float) -> None:
        more = steps.pop(0)
        if more is None:
            raise KeyboardInterrupt
        with (folder / "coordinator.log").open("a") as file:
            file.write(more)

    monkeypatch.setattr(time, "sleep", sleep)
    result = run_cli("logs", "-f", "--state-dir", folder)
    assert (result.exit_code, steps) == (0, [])
    assert result.stdout.splitlines()[-1].endswith("half a line")


def test_a_file_that_was_begun_again(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "up.log")
    assert log.read() == []
    log.path.write_text("a first life, long\n")
    assert [each.text for each in log.read()] == ["a first life, long"]
    log.path.write_text("another\n")
    assert [each.text for each in log.read()] == ["another"]


def test_json_lines_have_their_time(tmp_path: Path) -> None:
    (tmp_path / "stages.log").write_text('{"at": "2026-01-02T03:04:05.1", "instance": "d-1"}\n{broken\n')
    (entry,) = LogFile(tmp_path / "stages.log").read()
    assert (entry.sort_key, entry.names("d-1")) == ("2026-01-02 03:04:05,1", True)


def test_no_logs(run_cli: RunCli, tmp_path: Path) -> None:
    result = run_cli("logs", "--state-dir", tmp_path / "none")
    assert (result.exit_code, "elasticmm up" in result.stderr) == (1, True)
