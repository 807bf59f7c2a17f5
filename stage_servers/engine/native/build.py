"""Compiles the C++ beside it for this machine's processor, once, and loads it.

    python -m stage_servers.engine.native.build     compiles ahead of the first start

The result is kept under the user's cache folder, named by source, compiler and processor.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
_FLAGS = ("-O3", "-std=c++17", "-fopenmp", "-shared", "-fPIC", "-fno-math-errno", "-Wno-psabi")
_TIMEOUT_S = 120


class NativeError(RuntimeError):
    """The native step cannot be had here; the message says why."""


@cache
def load_library() -> ctypes.CDLL:
    """The compiled library; torch must be imported before, so that both use one OpenMP runtime.

    Raises NativeError.
    """
    try:
        return ctypes.CDLL(str(ensure_built()))
    except OSError as error:
        raise NativeError(f"the compiled library cannot be used ({error})") from None


def ensure_built() -> Path:
    """The library's path, compiling it unless another process or an earlier start did."""
    compiler = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")
    if compiler is None:
        raise NativeError("no C++ compiler is here (c++ or g++)")
    folder = _cache_folder()
    target = folder / f"native-{_identity(compiler)}.so"
    if not target.is_file():
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.is_file():
                _compile(compiler, target)
    return target


def _cache_folder() -> Path:
    """A folder that only this user may write to: what lies in it is loaded as code."""
    base = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(base) if base else Path.home() / ".cache") / "elasticmm"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o022:
        raise NativeError(f"{folder} can be written to by others")
    return folder


def _identity(compiler: str) -> str:
    digest = hashlib.sha256()
    for source in _sources("*.h", "*.cpp"):
        digest.update(source.read_bytes())
    digest.update(repr((_FLAGS, compiler, Path(compiler).stat().st_mtime_ns, platform.machine())).encode())
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text().splitlines()
        named = {line for line in lines if line.startswith(("flags", "Features", "model name"))}
        digest.update("".join(sorted(named)).encode())
    return digest.hexdigest()[:16]


def _sources(*patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in FOLDER.glob(pattern))


def _compile(compiler: str, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        made = Path(scratch) / target.name
        native = "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
        command = [compiler, *_FLAGS, native, "-o", str(made), *map(str, _sources("*.cpp"))]
        try:
            subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
        except subprocess.CalledProcessError as error:
            raise NativeError(f"{compiler} failed: {error.stderr.strip()[:500]}") from None
        except subprocess.TimeoutExpired:
            raise NativeError(f"{compiler} took more than {_TIMEOUT_S} s") from None
        made.replace(target)


if __name__ == "__main__":
    print(ensure_built())
