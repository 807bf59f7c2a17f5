"""What a cluster may leave behind: processes and shared memory files."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from cli.state import ProcessRecord
from kv_transfer.processes import identify

_SHM = Path("/dev/shm")
_MEDIA = re.compile(r"elasticmm-media-(\d+)-\d+")
_POLL_S = 0.02


def record_process(name: str, pid: int) -> ProcessRecord | None:
    """None if it is gone already."""
    identity = identify(pid)
    return None if identity is None else ProcessRecord(name, pid, identity.start_ticks)


def with_descendants(processes: Iterable[ProcessRecord]) -> list[ProcessRecord]:
    """Those that live, and whatever they started."""
    found: dict[int, ProcessRecord] = {}
    for record in living(processes):
        found[record.pid] = record
        for pid in _descendants(record.pid):
            described = record_process(f"child of {record.name}", pid)
            if described is not None:
                found.setdefault(pid, described)
    return list(found.values())


def _descendants(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def living(processes: Iterable[ProcessRecord]) -> list[ProcessRecord]:
    return [record for record in processes if record.identity.is_alive]


def wait_gone(processes: Iterable[ProcessRecord], timeout_s: float) -> list[ProcessRecord]:
    """Those that still live after that time."""
    remaining = living(processes)
    end_s = time.monotonic() + timeout_s
    while remaining and time.monotonic() < end_s:
        time.sleep(_POLL_S)
        remaining = living(remaining)
    return remaining


def signal_all(processes: Iterable[ProcessRecord], number: signal.Signals) -> None:
    for record in living(processes):
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, number)


def find_segments(cluster: str, processes: Iterable[ProcessRecord] = ()) -> list[Path]:
    """Shared memory files that name the cluster, or the pid of one of its processes as their owner."""
    pids = {str(record.pid) for record in processes}
    return sorted(
        path
        for path in _SHM.glob("elasticmm*")
        if path.name.startswith(f"elasticmm-{cluster}-") or _owner_pid(path.name) in pids
    )


def _owner_pid(name: str) -> str:
    """ "elasticmm-media-PID-N" is a gateway's; others end in the pid."""
    media = _MEDIA.fullmatch(name)
    return media.group(1) if media else name.rpartition("-")[2]


def remove_segments(segments: Iterable[Path]) -> None:
    for path in segments:
        path.unlink(missing_ok=True)
