"""The folder in which a running cluster is remembered: token, address, processes, logs."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kv_transfer.processes import ProcessIdentity

DEFAULT_NAME = "default"


class AlreadyUpError(RuntimeError):
    """Another `up` owns the folder."""


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One process; the start time tells it from a later one of the same pid."""

    name: str
    pid: int
    start_ticks: int

    @property
    def identity(self) -> ProcessIdentity:
        return ProcessIdentity(self.pid, self.start_ticks)


@dataclass(frozen=True, slots=True)
class ClusterRecord:
    """What `up` writes down when a cluster is ready."""

    cluster: str  # unique, in the names of its shared memory segments
    address: str  # HOST:PORT of the coordinator
    model: str
    topology: str
    processes: tuple[ProcessRecord, ...]  # the first one supervises the others
    tls: dict[str, str] | None = (
        None  # files and name to reach it with: ca, cert, key, name; None: plain text
    )
    http: str = ""  # URL of the HTTP door; empty: it is closed

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ClusterRecord:
        processes = tuple(ProcessRecord(**each) for each in values["processes"])
        return cls(**{**values, "processes": processes})


class StateDir:
    """One cluster's folder, mode 0700."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock_fd: int | None = None

    @property
    def token_path(self) -> Path:
        return self.path / "token"

    @property
    def record_path(self) -> Path:
        return self.path / "cluster.json"

    def log_path(self, name: str) -> Path:
        return self.path / f"{name}.log"

    def acquire(self) -> None:
        """Makes the folder this process's. Raises AlreadyUpError; the kernel frees it at our end."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
        except OSError as error:
            raise type(error)(f"state-dir: {self.path}: cannot be made ({error.strerror})") from None
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise AlreadyUpError(f"a cluster is up on {self.path} already (elasticmm down ends it)") from None
        self._lock_fd = descriptor

    def release(self) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def write_record(self, record: ClusterRecord) -> None:
        """At once or not at all."""
        draft = self.record_path.with_suffix(".new")
        draft.write_text(json.dumps(record.to_json(), indent=2) + "\n")
        draft.replace(self.record_path)

    def read_record(self) -> ClusterRecord | None:
        """None where no cluster is written down. Raises ValueError where it is, and cannot be read."""
        try:
            return ClusterRecord.from_json(json.loads(self.record_path.read_text()))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ValueError(f"{self.record_path}: cannot be read ({error.strerror})") from None
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.record_path}: is no record of a cluster ({error}); end its processes, then remove it"
            ) from None

    def clear(self) -> None:
        """Forgets the cluster; logs stay."""
        self.record_path.unlink(missing_ok=True)
        self.token_path.unlink(missing_ok=True)


def find_state_dir(path: Path | None, name: str = DEFAULT_NAME) -> StateDir:
    """The folder given, else the user's folder for clusters of that name."""
    if path is not None:
        return StateDir(path)
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    base = Path(runtime) if runtime and Path(runtime).is_dir() else _state_home()
    return StateDir(base / "elasticmm" / name)


def _state_home() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
