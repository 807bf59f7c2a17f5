from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from coordinator.audit import LOGGER, AuditLog


def test_lines_go_to_the_file_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    audit = AuditLog(tmp_path / "audit")
    audit.note("cache_flush", reason='a "reason"\n', instances=("p0",))
    audit.close()
    line = json.loads((tmp_path / "audit").read_text())
    assert (line["event"], line["reason"], line["instances"]) == ("cache_flush", 'a "reason"\n', ["p0"])
    assert line["at"].endswith("+00:00")
    assert not caplog.records
    assert (tmp_path / "audit").stat().st_mode & 0o777 == 0o600


def test_without_a_file_they_go_where_all_lines_go(caplog: pytest.LogCaptureFixture) -> None:
    audit = AuditLog()
    audit.note("cache_flush")
    audit.close()
    (record,) = caplog.records
    assert (record.name, json.loads(record.getMessage())["event"]) == (LOGGER, "cache_flush")


def test_the_file_may_be_moved_away_and_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "audit").write_text("before\n")
    audit = AuditLog(tmp_path / "audit")
    audit.note("one")
    (tmp_path / "audit").rename(tmp_path / "old")
    audit.note("two")
    audit.close()
    assert [len((tmp_path / name).read_text().splitlines()) for name in ("old", "audit")] == [2, 1]


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="audit"):
        AuditLog(tmp_path / "no folder" / "audit")
    assert not logging.getLogger(LOGGER).handlers
