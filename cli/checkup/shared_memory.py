"""Whether /dev/shm has room for pools, and what dead processes have left there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from cli.checkup.finding import Finding, fine, note, problem
from kv_transfer.segment import SHM_DIR, find_abandoned

_MIB = 1 << 20
_LEAST_FREE_BYTES = 64 * _MIB  # a container's usual /dev/shm: not one pool fits
_USUAL_FREE_BYTES = 1024 * _MIB


def check_shared_memory() -> Iterator[Finding]:
    if not SHM_DIR.is_dir():
        yield problem(str(SHM_DIR), "is not there", f"mount a tmpfs on {SHM_DIR}")
        return
    usage = shutil.disk_usage(SHM_DIR)
    yield check_room(usage.total, usage.free)
    yield check_left(find_abandoned())


def check_room(total_bytes: int, free_bytes: int) -> Finding:
    said = f"{free_bytes / _MIB:.0f} of {total_bytes / _MIB:.0f} MiB free"
    mend = f"mount -o remount,size=4G {SHM_DIR} (a container: --shm-size 4g), or fewer --kv-blocks"
    if free_bytes <= _LEAST_FREE_BYTES:
        return problem(str(SHM_DIR), f"{said}: pools and pictures lie there", mend)
    if free_bytes < _USUAL_FREE_BYTES:
        return note(str(SHM_DIR), f"{said}: little for pools and pictures", mend)
    return fine(str(SHM_DIR), said)


def check_left(paths: Sequence[Path]) -> Finding:
    """`paths`: segments whose owners are dead."""
    if not paths:
        return fine("left-over segments", "none")
    size_mib = sum(path.stat().st_size for path in paths if path.exists()) / _MIB
    return note(
        "left-over segments",
        f"{len(paths)} of dead processes hold {size_mib:.1f} MiB",
        f"rm {' '.join(map(str, paths))}",
    )
