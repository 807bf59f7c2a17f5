"""Copies between two ends' host memory, by C++ where a compiler is there.

python -m kv_transfer.native.copies     compiles ahead of the first start
"""

from __future__ import annotations

import ctypes
import logging
from array import array
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np

from core.compiled import NativeError, ensure_built
from kv_transfer.descriptors import Bytes, Copy, End

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent
FLAGS = ("-O3", "-std=c++17")
STREAM_BYTES = 1 << 20  # below, the receiver finds the bytes in a cache, and a plain copy leaves them there


class EndCopies:
    """Made once per pair of ends; any thread. All copies of a list are one call, without the GIL.

    `here` describes the bytes [size_bytes] of `source`, `there` those of `target`.
    """

    def __init__(self, here: End, source: Bytes, there: End, target: Bytes) -> None:
        self._library = load()
        self._here, self._source = here, source
        self._there, self._target = there, target
        self._way = array(
            "q", (*_fields(here, source), *_fields(there, target), here.num_heads, here.head_bytes)
        )
        self._way_address = self._way.buffer_info()[0]

    def run(self, planes: range, moves: Iterable[Copy], *, to_plane: int | None = None) -> int:
        """Copies from these planes to as many from `to_plane` on (None: the same); returns the bytes copied.

        Raises ValueError or TypeError for what is not within the memories.
        """
        to_planes = planes if to_plane is None else range(to_plane, to_plane + len(planes))
        if self._library is None:
            return sum(self._copy(planes, to_planes, move) for move in moves)
        return self._run(self._library, planes, to_planes, moves)

    def _run(self, library: ctypes.CDLL, planes: range, to_planes: range, moves: Iterable[Copy]) -> int:
        numbers = array("q", [number for move in moves for part in move for number in part])
        address, count = numbers.buffer_info()
        size_bytes: int = library.copy_all(
            self._way_address, address, count // 8, planes.start, to_planes.start, len(planes), STREAM_BYTES
        )
        if size_bytes < 0:
            raise ValueError("a copy is not within the memory of both ends")
        return size_bytes

    def _copy(self, planes: range, to_planes: range, move: Copy) -> int:
        data = self._here.view(self._source, planes, move.source)
        np.copyto(self._there.view(self._target, to_planes, move.target), data)
        return data.nbytes


def _fields(end: End, memory: Bytes) -> tuple[int, ...]:
    """As the native code's struct End has them."""
    address: int = memory.__array_interface__["data"][0]
    return address, memory.nbytes, end.strides.plane, end.strides.token, end.strides.head


@cache
def load() -> ctypes.CDLL | None:
    """None, with a warning, where the native code cannot be had."""
    try:
        library = ctypes.CDLL(str(ensure_built(FOLDER, FLAGS)))
    except (NativeError, OSError) as error:
        logger.warning("payloads are copied by numpy: %s", error)
        return None
    library.copy_all.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 5]
    library.copy_all.restype = ctypes.c_int64
    return library


if __name__ == "__main__":
    print(ensure_built(FOLDER, FLAGS))
