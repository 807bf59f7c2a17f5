"""Large copies past the caches, by C++ where a compiler is there.

python -m kv_transfer.native.stream     compiles ahead of the first start
"""

from __future__ import annotations

import ctypes
import logging
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from core.compiled import NativeError, ensure_built

logger = logging.getLogger(__name__)

Bytes = npt.NDArray[np.uint8]

FOLDER = Path(__file__).parent
FLAGS = ("-O3", "-std=c++17")
STREAM_BYTES = 1 << 20  # below, the receiver finds the bytes in a cache, and a plain copy leaves them there
_MIN_ROW_BYTES = 512  # shorter rows gain nothing


class StreamCopy:
    """Copies bytes as np.copyto does, without the GIL; large rows faster, if C++ could be compiled here."""

    def __init__(self) -> None:
        self._library: ctypes.CDLL | None = None
        try:
            self._library = _load()
        except NativeError as error:
            logger.warning("large payloads are copied through the caches: %s", error)

    @property
    def is_native(self) -> bool:
        return self._library is not None

    def copy(self, target: Bytes, source: Bytes) -> None:
        """Shapes are equal: [groups, rows, …]. Rows are streamed that are dense at both ends."""
        is_large = self._library is not None and source.nbytes >= STREAM_BYTES
        if not is_large or not (_has_whole_rows(target) and _has_whole_rows(source)):
            np.copyto(target, source)
            return
        if source.shape[0] > source.shape[1]:  # then the other axis has more rows for one call
            target, source = target.swapaxes(0, 1), source.swapaxes(0, 1)
        for there, here in zip(target, source, strict=True):
            self._stream(there, here)

    def _stream(self, target: Bytes, source: Bytes) -> None:
        assert self._library is not None
        sizes = len(source), target.strides[0], source.strides[0], source[0].nbytes
        self._library.stream_rows(
            ctypes.c_void_p(target.ctypes.data),
            ctypes.c_void_p(source.ctypes.data),
            *(ctypes.c_int64(size) for size in sizes),
        )


def _has_whole_rows(array: Bytes) -> bool:
    row = array[0, 0]
    return row.nbytes >= _MIN_ROW_BYTES and bool(row.flags.c_contiguous)


@cache
def _load() -> ctypes.CDLL:
    """Raises NativeError."""
    try:
        return ctypes.CDLL(str(ensure_built(FOLDER, FLAGS)))
    except OSError as error:
        raise NativeError(f"the compiled library cannot be used ({error})") from None


if __name__ == "__main__":
    print(ensure_built(FOLDER, FLAGS))
