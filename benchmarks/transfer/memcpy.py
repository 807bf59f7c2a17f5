"""The yardstick: the same bytes copied by memcpy, one thread, warm."""

from __future__ import annotations

import time

import numpy as np
import torch

from kv_transfer.descriptors import Bytes
from kv_transfer.pool import Pool
from kv_transfer.segment import SharedSegment


class Memcpy:
    """Copies the source pool's first bytes as one piece: to private memory, or to the receiver's segment."""

    def __init__(self, source: Pool, segment: SharedSegment) -> None:
        self._source: Bytes = source.tensor.view(torch.uint8).numpy().reshape(-1)
        self._private = np.zeros_like(self._source)
        self._shared = segment.array()
        for target in (self._private, self._shared):  # all pages are mapped then
            np.copyto(target, self._source)

    def private_s(self, size_bytes: int) -> float:
        return self._copy_s(self._private, size_bytes)

    def shared_s(self, size_bytes: int) -> float:
        return self._copy_s(self._shared, size_bytes)

    def _copy_s(self, target: Bytes, size_bytes: int) -> float:
        start_s = time.perf_counter()
        np.copyto(target[:size_bytes], self._source[:size_bytes])
        return time.perf_counter() - start_s
