import json
import logging
import sys

import pytest

from core.log_lines import JsonLines, start_log


def record(message: str, *values: object, **facts: object) -> logging.LogRecord:
    made = logging.LogRecord("coordinator.story", logging.INFO, "", 0, message, values, None)
    made.__dict__ |= facts
    return made


def test_facts_stand_beside_the_message() -> None:
    line = JsonLines().format(record("request %s: ended\nü", "r1", request_id="r1", tenant="acme", other=1))
    assert "\n" not in line
    said = json.loads(line)
    assert said.pop("at").endswith("+00:00")
    assert said == {
        "level": "INFO",
        "logger": "coordinator.story",
        "message": "request r1: ended\nü",
        "request_id": "r1",
        "tenant": "acme",
    }


def test_an_instance_names_itself_unless_the_line_names_another() -> None:
    lines = JsonLines("d-0")
    assert json.loads(lines.format(record("x")))["instance_id"] == "d-0"
    assert json.loads(lines.format(record("x", instance_id="p-0")))["instance_id"] == "p-0"


def test_errors_come_with_their_traceback() -> None:
    failed = record("x")
    try:
        raise RuntimeError("trouble")
    except RuntimeError:
        failed.exc_info = sys.exc_info()
    assert json.loads(JsonLines().format(failed))["error"].endswith("RuntimeError: trouble")


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="log_format: 'xml'"):
        start_log("INFO", "xml")
