"""The log files of a cluster that `up` started, as entries in order of time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

_PLAIN = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[,.]\d+) ")


@dataclass(frozen=True, slots=True)
class Entry:
    """What was logged at once; `text` may have several lines, such as a traceback's."""

    part: str  # whose file: "up", "coordinator" or "stages"
    at: str  # as it was written; of what bears no time, that of the entry before it
    text: str

    @property
    def sort_key(self) -> str:
        return self.at.replace("T", " ").replace(".", ",")

    def names(self, instance_id: str) -> bool:
        """Whether the instance wrote it, or it speaks of it."""
        return re.search(rf"(?<![\w-]){re.escape(instance_id)}(?![\w-])", self.text) is not None


class LogFile:
    """Read as far as it is written; begun again where it was."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._position = 0
        self._pending = b""  # a line that is not whole
        self._at = ""

    def read(self) -> list[Entry]:
        """What came since the last call, whole lines only."""
        try:
            with self.path.open("rb") as file:
                if file.seek(0, 2) < self._position:
                    self._position, self._pending = 0, b""
                file.seek(self._position)
                data = file.read()
        except FileNotFoundError:
            return []
        self._position += len(data)
        *lines, self._pending = (self._pending + data).split(b"\n")
        return list(self._entries(line.decode(errors="replace") for line in lines))

    def _entries(self, lines: Iterable[str]) -> Iterator[Entry]:
        entry: Entry | None = None
        for line in lines:
            at = time_of(line)
            if at is None and entry is not None:
                entry = replace(entry, text=f"{entry.text}\n{line}")
                continue
            if entry is not None:
                yield entry
            self._at = at or self._at
            entry = Entry(self.path.stem, self._at, line)
        if entry is not None:
            yield entry


def time_of(line: str) -> str | None:
    """None where it bears none: it goes on from the line before."""
    if (plain := _PLAIN.match(line)) is not None:
        return plain[1]
    if not line.startswith("{"):
        return None
    try:
        values = json.loads(line)
    except ValueError:
        return None
    return str(values["at"]) if "at" in values else None


def log_files(folder: Path) -> list[LogFile]:
    """Empty where no cluster was started with this folder."""
    return [LogFile(path) for path in sorted(folder.glob("*.log"))]


def read_all(files: Iterable[LogFile]) -> list[Entry]:
    """What is new in all of them, in order of time."""
    return sorted((entry for file in files for entry in file.read()), key=lambda entry: entry.sort_key)
