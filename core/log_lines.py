"""The lines of a process's log: for people, or one JSON object each for programs."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

LOG_FORMATS = ("text", "json")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

# Facts that a line may carry in `extra`; a request's id is the same in every process.
_FACTS = ("request_id", "tenant", "instance_id")


def check_log_format(name: str) -> None:
    """Raises ValueError."""
    if name not in LOG_FORMATS:
        raise ValueError(f"log_format: {name!r} is neither of {', '.join(LOG_FORMATS)}")


def check_log_level(name: str) -> None:
    """Raises ValueError."""
    if name not in LOG_LEVELS:
        raise ValueError(f"log_level: {name!r} is not one of {', '.join(LOG_LEVELS)}")


def start_log(level: str, log_format: str, instance_id: str = "") -> None:
    """Lines go to stderr from now on; JSON ones name the instance, if the process is one.

    Called once a process, by its main function. Raises ValueError.
    """
    check_log_format(log_format)
    check_log_level(level)
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(instance_id) if log_format == "json" else _plain(instance_id))
    logging.basicConfig(level=level, handlers=[handler])


class JsonLines(logging.Formatter):
    """`at` (RFC 3339, UTC), `level`, `logger`, `message`, facts, and `error` with the traceback."""

    def __init__(self, instance_id: str = "") -> None:
        super().__init__()
        self._instance = {"instance_id": instance_id} if instance_id else {}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self._instance,
        }
        line |= {name: getattr(record, name) for name in _FACTS if hasattr(record, name)}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _plain(instance_id: str) -> logging.Formatter:
    """With whose line it is, so that those of several processes can be told apart."""
    whose = instance_id.replace("%", "%%") + " " if instance_id else ""
    return logging.Formatter(f"%(asctime)s {whose}%(levelname)s %(name)s: %(message)s")
