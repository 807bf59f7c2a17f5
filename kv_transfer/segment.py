"""Memory that several processes of one host map: a file in /dev/shm with a header.

    | header, one page: magic, length, JSON record | payload … |

The owner holds a lock on the file as long as it lives, and its process id
stands in the file's name, so that what a killed process left can be told from
what is in use.
"""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
import re
import struct
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kv_transfer.errors import AttachError
from kv_transfer.local_socket import is_unheard
from kv_transfer.processes import ProcessIdentity, start_ticks

if TYPE_CHECKING:
    import torch

SHM_DIR = Path("/dev/shm")
PREFIX = "elasticmm-"
HEADER_BYTES = 4096
_MAGIC = b"EMMSEG01"
_HEAD = struct.Struct("<8sI")
_KIND_AND_PID = re.compile(r"-[a-z]\w*-([1-9]\d*)(\.\w+)?$")  # with a suffix where one was renamed
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]+")


class SegmentTooLarge(OSError):
    """The shared memory file system has no room for the segment."""


@dataclass(frozen=True, slots=True)
class SegmentOwner:
    """Names a process's segments. `epoch` tells its lives under one instance id apart."""

    cluster: str
    instance_id: str
    epoch: int

    def segment_name(self, kind: str) -> str:
        parts = (_NOT_IN_NAMES.sub("_", part) for part in (self.cluster, self.instance_id, kind))
        return PREFIX + "-".join((*parts, str(os.getpid())))


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """The header's content: who owns the segment, and `labels` that its owner gives it."""

    pid: int
    start_ticks: int
    epoch: int
    payload_bytes: int
    labels: Mapping[str, Any] = field(default_factory=dict)

    @property
    def owner(self) -> ProcessIdentity:
        return ProcessIdentity(self.pid, self.start_ticks)


class SharedSegment:
    """A mapped segment; made by `create` (the owner) or `attach` (anybody else on the host)."""

    def __init__(
        self, path: Path, record: SegmentRecord, fd: int, mapping: mmap.mmap, *, is_owner: bool
    ) -> None:
        self.path = path
        self.record = record
        self._mapping: mmap.mmap | None = mapping
        self._close_fd = weakref.finalize(self, os.close, fd)
        self._unlink = weakref.finalize(self, _unlink_own, path, os.getpid()) if is_owner else None

    @classmethod
    def create(
        cls, owner: SegmentOwner, kind: str, payload_bytes: int, labels: Mapping[str, Any] | None = None
    ) -> SharedSegment:
        """A new zero-filled segment, mode 0600, all of it reserved.

        Raises SegmentTooLarge naming size and room, ValueError for an empty payload.
        """
        if payload_bytes < 1:
            raise ValueError("payload_bytes: a segment holds at least one byte")
        path = SHM_DIR / owner.segment_name(kind)
        _reap(path)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _reserve(fd, HEADER_BYTES + payload_bytes, kind)
            ticks = start_ticks(os.getpid()) or 0
            record = SegmentRecord(os.getpid(), ticks, owner.epoch, payload_bytes, dict(labels or {}))
            mapping = mmap.mmap(fd, HEADER_BYTES + payload_bytes)
            _write_record(mapping, record)
        except BaseException:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        return cls(path, record, fd, mapping, is_owner=True)

    @classmethod
    def attach(cls, path: str | Path) -> SharedSegment:
        """Maps a peer's segment for reading and writing; raises AttachError."""
        path = Path(path)
        fd = open_segment(path, os.O_RDWR)
        try:
            record = read_record(fd)
            mapping = mmap.mmap(fd, HEADER_BYTES + record.payload_bytes)
        except (OSError, ValueError) as error:
            os.close(fd)
            raise AttachError(f"{path}: {error}") from error
        return cls(path, record, fd, mapping, is_owner=False)

    def sibling(self, kind: str) -> Path:
        """Where the owner may put something else that is found and reaped as this segment is."""
        stem = self.path.name.rsplit("-", 2)[0]  # without kind and process id
        return self.path.with_name(f"{stem}-{kind}-{self.record.pid}")

    def array(self) -> npt.NDArray[np.uint8]:
        """The payload's bytes, [payload_bytes], without a copy."""
        return np.frombuffer(self._open_mapping(), np.uint8, self.record.payload_bytes, HEADER_BYTES)

    def tensor(self, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
        """The payload as a tensor, without a copy; `shape` fills it exactly."""
        import torch

        count = self.record.payload_bytes // dtype.itemsize
        flat: torch.Tensor = torch.frombuffer(
            self._open_mapping(), dtype=dtype, count=count, offset=HEADER_BYTES
        )
        return flat.view(shape)

    def _open_mapping(self) -> mmap.mmap:
        if self._mapping is None:
            raise ValueError(f"{self.path}: the segment was closed")
        return self._mapping

    def unlink(self) -> None:
        """Takes the name away (owner only); mappings stay valid."""
        if self._unlink is not None:
            self._unlink()

    def close(self) -> None:
        """Unlinks if this is the owner. The memory is unmapped with the last view of it.

        Never sooner: a tensor keeps the mapping object, but does not keep it from being closed.
        """
        self.unlink()
        self._close_fd()
        self._mapping = None


def reap_segments(cluster: str | None = None) -> list[Path]:
    """Removes segments and sockets whose owner is dead (of one cluster, or of all); returns their paths."""
    prefix = PREFIX if cluster is None else f"{PREFIX}{_NOT_IN_NAMES.sub('_', cluster)}-"
    return [path for path in sorted(SHM_DIR.glob(f"{prefix}*")) if _reap(path)]


def find_abandoned() -> list[Path]:
    """Segments and sockets of all clusters whose owner is dead; removes none of them."""
    return [path for path in sorted(SHM_DIR.glob(f"{PREFIX}*")) if _is_left(path)]


def reap_left_by(path: str | Path) -> list[Path]:
    """Removes what the dead owner of the segment at `path` left, sockets included; returns their paths."""
    stem, _, pid = Path(path).name.rsplit("-", 2)
    return [left for left in sorted(SHM_DIR.glob(f"{stem}-*-{pid}")) if _reap(left)]


def open_segment(path: str | Path, access: int) -> int:
    """A descriptor of a segment's file, with O_RDONLY or O_RDWR; raises AttachError."""
    path = Path(path)
    if path.parent != SHM_DIR or not path.name.startswith(PREFIX):
        raise AttachError(f"{path}: not a segment's path")
    try:
        return os.open(path, access | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise AttachError(f"{path}: {error.strerror}") from error


def _reap(path: Path) -> bool:
    if path.is_socket():
        return _reap_socket(path)
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False  # gone, or not ours to touch
    try:
        if not _is_abandoned(fd, path):
            return False
        path.unlink(missing_ok=True)
        return True
    finally:
        os.close(fd)


def _reap_socket(path: Path) -> bool:
    if not _is_left_socket(path):
        return False
    path.unlink(missing_ok=True)
    return True


def _is_left_socket(path: Path) -> bool:
    """Unheard and of no living process: one that is being made is unheard for a moment, too."""
    name = _KIND_AND_PID.search(path.name)
    return name is not None and start_ticks(int(name[1])) is None and is_unheard(path)


def _is_left(path: Path) -> bool:
    if path.is_socket():
        return _is_left_socket(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False  # gone, or another user's
    try:
        return _is_abandoned(fd, path)
    finally:
        os.close(fd)


def _is_abandoned(fd: int, path: Path) -> bool:
    """Whether nobody holds the owner's lock and the owner's process is gone.

    Both: a lock alone is missing for a moment after creation, a process id
    alone says nothing across containers.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    try:
        return not read_record(fd).owner.is_alive
    except ValueError:
        name = _KIND_AND_PID.search(path.name)
        return name is not None and start_ticks(int(name[1])) is None


def _reserve(fd: int, size_bytes: int, kind: str) -> None:
    """Allocates the pages now: a full file system would otherwise be a SIGBUS later."""
    try:
        os.posix_fallocate(fd, 0, size_bytes)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.ENOMEM):
            raise
        room = os.statvfs(SHM_DIR)
        free_mib = room.f_bavail * room.f_frsize / 2**20
        raise SegmentTooLarge(
            error.errno,
            f"{SHM_DIR}: the {kind} segment needs {size_bytes / 2**20:.1f} MiB, {free_mib:.1f} MiB are free",
        ) from error


def _write_record(mapping: mmap.mmap, record: SegmentRecord) -> None:
    values = {name: getattr(record, name) for name in ("pid", "start_ticks", "epoch", "payload_bytes")}
    body = json.dumps(values | {"labels": dict(record.labels)}).encode()
    if _HEAD.size + len(body) > HEADER_BYTES:
        raise ValueError(f"labels: {len(body)} bytes do not fit the header page")
    mapping[_HEAD.size : _HEAD.size + len(body)] = body
    mapping[: _HEAD.size] = _HEAD.pack(_MAGIC, len(body))


def read_record(fd: int) -> SegmentRecord:
    """The header of an open segment; raises ValueError if this is no complete segment."""
    page = os.pread(fd, HEADER_BYTES, 0)
    if len(page) < HEADER_BYTES or page[:8] != _MAGIC:
        raise ValueError("not a segment")
    length = _HEAD.unpack_from(page)[1]
    try:
        record = SegmentRecord(**json.loads(page[_HEAD.size : _HEAD.size + length]))
    except TypeError as error:
        raise ValueError(f"the header is of another version: {error}") from error
    if os.fstat(fd).st_size < HEADER_BYTES + record.payload_bytes:
        raise ValueError("the segment is shorter than its header says")
    return record


def _unlink_own(path: Path, pid: int) -> None:
    """Not in a forked child, which inherits the finalizer."""
    if os.getpid() == pid:
        path.unlink(missing_ok=True)
