"""Whether another process of this host lives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process id is reused; together with its start time it is not."""

    pid: int
    start_ticks: int  # since boot, as /proc says it

    @property
    def is_alive(self) -> bool:
        return start_ticks(self.pid) == self.start_ticks


def start_ticks(pid: int) -> int | None:
    """When the process started; None if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before may hold anything
    return None if fields[0] in "ZX" else int(fields[19])


def identify(pid: int) -> ProcessIdentity | None:
    """None if no such process is visible from here."""
    ticks = start_ticks(pid) if pid > 0 else None
    return None if ticks is None else ProcessIdentity(pid, ticks)
