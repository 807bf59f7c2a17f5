"""Loads the C++ beside it, compiled for this machine's processor.

python -m stage_servers.engine.native.build     compiles ahead of the first start
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

from core import compiled
from core.compiled import NativeError

__all__ = ["NativeError", "ensure_built", "load_library"]

FOLDER = Path(__file__).parent
_FLAGS = ("-O3", "-std=c++17", "-fopenmp", "-fno-math-errno", "-Wno-psabi")


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
    """The library's path; raises NativeError."""
    return compiled.ensure_built(FOLDER, _FLAGS)


if __name__ == "__main__":
    print(ensure_built())
