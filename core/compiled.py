"""Compiles a folder's C++ for this machine's processor, once, and says where the library lies.

The result is kept under the user's cache folder, named by source, flags, compiler and processor.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

_TIMEOUT_S = 120


class NativeError(RuntimeError):
    """The native code cannot be had here; the message says why."""


def ensure_built(folder: Path, flags: Sequence[str]) -> Path:
    """The library made of the folder's sources, compiling it unless another process or an earlier start did.

    Raises NativeError.
    """
    compiler = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")
    if compiler is None:
        raise NativeError("no C++ compiler is here (c++ or g++)")
    identity = f"{_identity(folder, flags, compiler)}.so"
    return made_once("native", identity, lambda made: _compile(folder, flags, compiler, made))


def made_once(kind: str, identity: str, make: Callable[[Path], None]) -> Path:
    """What stands for the kind and identity in the user's cache folder.

    `make` is called with a path to make it at, unless another process or an earlier start has made it: one
    process at a time for each kind. Raises NativeError, and what `make` raises.
    """
    cache = cache_folder()
    target = cache / f"{kind}-{identity}"
    if not target.exists():
        with (cache / f"{kind}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists():
                with tempfile.TemporaryDirectory(dir=cache) as scratch:
                    made = Path(scratch) / target.name
                    make(made)
                    made.replace(target)
    return target


def cache_folder() -> Path:
    """A folder that only this user may write to: what lies in it is loaded as code."""
    base = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(base) if base else Path.home() / ".cache") / "elasticmm"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o022:
        raise NativeError(f"{folder} can be written to by others")
    return folder


def _identity(folder: Path, flags: Sequence[str], compiler: str) -> str:
    digest = hashlib.sha256()
    for source in _sources(folder, "*.h", "*.cpp"):
        digest.update(source.read_bytes())
    made_by = (tuple(flags), compiler, Path(compiler).stat().st_mtime_ns, platform.machine())
    digest.update(repr(made_by).encode())
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text().splitlines()
        named = {line for line in lines if line.startswith(("flags", "Features", "model name"))}
        digest.update("".join(sorted(named)).encode())
    return digest.hexdigest()[:16]


def _sources(folder: Path, *patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in folder.glob(pattern))


def _compile(folder: Path, flags: Sequence[str], compiler: str, made: Path) -> None:
    native = "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
    sources = map(str, _sources(folder, "*.cpp"))
    command = [compiler, *flags, native, "-shared", "-fPIC", "-o", str(made), *sources]
    try:
        subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except subprocess.CalledProcessError as error:
        raise NativeError(f"{compiler} failed: {error.stderr.strip()[:500]}") from None
    except subprocess.TimeoutExpired:
        raise NativeError(f"{compiler} took more than {_TIMEOUT_S} s") from None
