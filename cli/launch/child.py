"""A child process that says how it is doing, in JSON lines on its output."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


class Child:
    """Its errors go to a log file. It gets a session of its own, so that Ctrl-C is ours alone."""

    def __init__(
        self, name: str, command: Sequence[str], log_path: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log_path = log_path
        self._pending = b""
        with log_path.open("wb") as log:
            log_path.chmod(0o600)
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        """For selectors: readable when there are events."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def send(self, objects: Iterable[dict[str, Any]]) -> None:
        """Writes JSON lines to its input. A child that is gone is noticed when its output ends."""
        assert self._process.stdin is not None
        lines = "".join(json.dumps(each) + "\n" for each in objects)
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(lines.encode())
            self._process.stdin.flush()

    def read_events(self) -> list[dict[str, Any]] | None:
        """What it said since the last call, None at its end. Blocks where nothing came."""
        data = os.read(self.fileno(), 65536)
        *lines, self._pending = (self._pending + data).split(b"\n")
        return [json.loads(line) for line in lines if line.startswith(b"{")] if data else None

    def is_running(self) -> bool:
        return self._process.poll() is None

    def terminate(self) -> None:
        """Asks it to end: end of input, then SIGTERM."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.terminate()

    def wait(self, timeout_s: float) -> int | None:
        """Its exit code; None if it still runs after that time."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        assert self._process.stdout is not None
        self._process.stdout.close()

    def last_lines(self, count: int = 15) -> str:
        """The end of its log."""
        try:
            return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-count:])
        except FileNotFoundError:
            return ""
