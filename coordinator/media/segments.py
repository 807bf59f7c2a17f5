"""Shared memory files of one gateway process: named after it, private, gone with it."""

from __future__ import annotations

import os
import re
import tempfile
from itertools import count
from pathlib import Path
from typing import BinaryIO

_SHM = Path("/dev/shm")
_NAME = re.compile(r"elasticmm-media-(\d+)-\d+")


class SegmentFolder:
    """Makes files that other processes of the same user can map."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or (_SHM if _SHM.is_dir() else Path(tempfile.gettempdir()))
        self._numbers = count()

    def create(self) -> tuple[Path, BinaryIO]:
        """A new empty file, mode 0600, open for writing."""
        path = self._folder / f"elasticmm-media-{os.getpid()}-{next(self._numbers)}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        return path, os.fdopen(fd, "wb")

    def reap(self) -> int:
        """Removes what gateways that no longer live have left; the number of files."""
        removed = 0
        for path, pid in self._all():
            if pid != os.getpid() and not _is_alive(pid):
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    def remove_own(self) -> None:
        for path, pid in self._all():
            if pid == os.getpid():
                path.unlink(missing_ok=True)

    def _all(self) -> list[tuple[Path, int]]:
        found = ((path, _NAME.fullmatch(path.name)) for path in self._folder.glob("elasticmm-media-*"))
        return [(path, int(match.group(1))) for path, match in found if match]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
