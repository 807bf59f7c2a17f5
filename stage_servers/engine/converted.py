"""Weights in another dtype than the file's, converted once per host and shared by its processes.

The copy lies in shared memory under a name made of fingerprint and dtype. Every user holds a
shared flock on it for as long as it lives, so the kernel counts the users and forgets the dead
ones; whoever gets the exclusive lock is alone and may remove the file.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import time
import weakref
from collections.abc import Mapping
from pathlib import Path

import torch

SHARED_FOLDER = Path("/dev/shm")
PREFIX = "elasticmm-weights-"
_ALIGNMENT = 64
_POLL_S = 0.05
_DTYPE_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


class SharedWeights:
    """One user's hold on a converted copy; `path` is a safetensors file in shared memory."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._finalizer = weakref.finalize(self, _let_go, path, fd)

    def close(self) -> None:
        """Gives the hold up; the last user's removes the file. Tensors already mapped stay valid."""
        self._finalizer()


def share_converted(
    name: str, weights: Mapping[str, torch.Tensor], dtype: torch.dtype, folder: Path = SHARED_FOLDER
) -> SharedWeights:
    """The copy called `name`, made from `weights` unless another process made it already.

    Raises OSError if shared memory has no room for it.
    """
    remove_unused(folder)
    path = folder / f"{PREFIX}{name}"
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if _lock_and_fill(path, fd, weights, dtype):
                return SharedWeights(path, fd)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def remove_unused(folder: Path = SHARED_FOLDER) -> None:
    """Removes the copies whose users are all gone, those that were killed included."""
    for path in folder.glob(f"{PREFIX}*"):
        try:
            fd = os.open(path, os.O_RDWR)
        except OSError:
            continue
        _let_go(path, fd)


def _lock_and_fill(path: Path, fd: int, weights: Mapping[str, torch.Tensor], dtype: torch.dtype) -> bool:
    """Ends with a shared lock on a whole copy; False if the file was removed meanwhile."""
    while True:
        is_alone = _lock_if_alone(fd)
        if not _is_same_file(path, fd):
            return False
        if is_alone and os.fstat(fd).st_size == 0:
            _write(path, fd, weights, dtype)
        # Turning an exclusive lock into a shared one is not atomic, hence the check after it.
        fcntl.flock(fd, fcntl.LOCK_SH)
        if not _is_same_file(path, fd):
            return False
        if os.fstat(fd).st_size > 0:
            return True
        fcntl.flock(fd, fcntl.LOCK_UN)
        time.sleep(_POLL_S)


def _lock_if_alone(fd: int) -> bool:
    """Takes the exclusive lock if no one else holds any."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(path: Path, fd: int, weights: Mapping[str, torch.Tensor], dtype: torch.dtype) -> None:
    """Fills the file in place, tensor by tensor; nothing is left of it if that fails."""
    header, layout, data_bytes = _layout(weights, dtype)
    try:
        os.posix_fallocate(fd, 0, len(header) + data_bytes)
        storage = torch.UntypedStorage.from_file(str(path), shared=True, nbytes=len(header) + data_bytes)
        flat = torch.empty(0, dtype=torch.uint8).set_(storage)  # type: ignore[arg-type]
        for name, (start, end, kind) in layout.items():
            target = flat[len(header) + start : len(header) + end].view(kind)
            target.view(weights[name].shape).copy_(weights[name])
        flat[: len(header)].copy_(torch.frombuffer(bytearray(header), dtype=torch.uint8))
    except BaseException:
        os.ftruncate(fd, 0)
        path.unlink(missing_ok=True)
        raise


def _layout(
    weights: Mapping[str, torch.Tensor], dtype: torch.dtype
) -> tuple[bytes, dict[str, tuple[int, int, torch.dtype]], int]:
    """(safetensors header, place and dtype of each tensor behind it, bytes of all)."""
    layout: dict[str, tuple[int, int, torch.dtype]] = {}
    entries: dict[str, object] = {}
    offset = 0
    for name, tensor in weights.items():
        end = offset + tensor.numel() * dtype.itemsize
        layout[name] = (offset, end, dtype)
        entries[name] = {
            "dtype": _DTYPE_NAMES[dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text, layout, offset


def _is_same_file(path: Path, fd: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(fd).st_ino
    except FileNotFoundError:
        return False


def _let_go(path: Path, fd: int) -> None:
    """Closes the hold; removes the file if no one else has one."""
    os.close(fd)
    try:
        fd = os.open(path, os.O_RDWR)
    except OSError:
        return
    try:
        if _lock_if_alone(fd) and _is_same_file(path, fd):
            path.unlink()
    finally:
        os.close(fd)
