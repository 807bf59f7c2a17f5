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

    @property
    def is_stopped(self) -> bool:
        """Whether a signal or a debugger stopped it: it may go on at any time, where it was."""
        fields = _stat(self.pid)
        return fields is not None and fields[0] in "Tt" and int(fields[19]) == self.start_ticks


def start_ticks(pid: int) -> int | None:
    """When the process started; None if it is gone or a zombie."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in "ZX" else int(fields[19])


def _stat(pid: int) -> list[str] | None:
    """What /proc says of it, from its state on; None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()  # the name before may hold anything


def identify(pid: int) -> ProcessIdentity | None:
    """None if no such process is visible from here."""
    ticks = start_ticks(pid) if pid > 0 else None
    return None if ticks is None else ProcessIdentity(pid, ticks)


class SeenProcesses:
    """Peers' processes by the name of each peer, so that one that is gone is told from one never visible.

    A process in another container may be invisible from here and alive.
    """

    def __init__(self) -> None:
        self._seen: dict[str, ProcessIdentity] = {}

    def identify(self, name: str, pid: int) -> ProcessIdentity | None:
        """The process with that id, though it be dead; None if it was never visible from here."""
        found = identify(pid)
        if found is not None:
            self._seen[name] = found
            return found
        seen = self._seen.get(name)
        return seen if seen is not None and seen.pid == pid else None
