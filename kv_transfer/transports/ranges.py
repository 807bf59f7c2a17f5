"""Copies as flat byte ranges, for transports that take addresses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kv_transfer.runs import CopyRun

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SlotSpan:
    """Where slots [num_planes, num_slots, token_bytes] lie in some process's memory."""

    address: int
    num_slots: int
    token_bytes: int


class ByteRanges(NamedTuple):
    """Range i: `sizes_bytes[i]` bytes from `sources[i]` to `targets[i]`, both addresses. All [num_ranges]."""

    sources: Numbers
    targets: Numbers
    sizes_bytes: Numbers


def byte_ranges(runs: Iterable[CopyRun], planes: range, source: SlotSpan, target: SlotSpan) -> ByteRanges:
    """The runs of every plane, joined where they are adjacent at both ends."""
    table = np.array(list(runs), np.int64).reshape(-1, 3)  # source slot, target slot, tokens
    numbers = np.arange(planes.start, planes.stop, dtype=np.int64)[:, None]
    return _joined(
        (source.address + (numbers * source.num_slots + table[:, 0]) * source.token_bytes).ravel(),
        (target.address + (numbers * target.num_slots + table[:, 1]) * target.token_bytes).ravel(),
        np.tile(table[:, 2] * source.token_bytes, len(planes)),
    )


def _joined(sources: Numbers, targets: Numbers, sizes_bytes: Numbers) -> ByteRanges:
    if len(sources) < 2:
        return ByteRanges(sources, targets, sizes_bytes)
    ends = sources[:-1] + sizes_bytes[:-1], targets[:-1] + sizes_bytes[:-1]
    is_first = np.concatenate(([True], (sources[1:] != ends[0]) | (targets[1:] != ends[1])))
    firsts = np.flatnonzero(is_first)
    return ByteRanges(sources[firsts], targets[firsts], np.add.reduceat(sizes_bytes, firsts))
