"""What must be accounted for afterwards, one JSON object a line, on the logger `elasticmm.audit`."""

from __future__ import annotations

import json
import logging
import logging.handlers
from datetime import UTC, datetime
from pathlib import Path

LOGGER = "elasticmm.audit"


class AuditLog:
    """Of one coordinator: to a file of its own if one is named, else where all other lines go.

    The file is private to its user, is appended to, and may be moved away at any time: another is begun.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Raises OSError if the file cannot be written."""
        self._logger = logging.getLogger(LOGGER)
        self._logger.setLevel(logging.INFO)  # whatever level the ordinary log has
        self._handler = None if path is None else _open(path)
        if self._handler is not None:
            self._logger.addHandler(self._handler)
            self._logger.propagate = False

    def note(self, event: str, **facts: object) -> None:
        """`facts` must be plain JSON values."""
        line = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts}
        self._logger.info("%s", json.dumps(line, ensure_ascii=False))

    def close(self) -> None:
        if self._handler is not None:
            self._logger.removeHandler(self._handler)
            self._logger.propagate = True
            self._handler.close()
            self._handler = None


def _open(path: Path) -> logging.Handler:
    path.touch(mode=0o600)
    handler = logging.handlers.WatchedFileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(message)s"))
    return handler
