"""CRC-32 per block of the receiver: over its committed tokens, plane by plane, token by token."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from kv_transfer.runs import BlockTable
from kv_transfer.source import Bytes, PlaneSource


def block_checksums(
    source: PlaneSource, table: BlockTable, num_tokens: int, block_tokens: int
) -> tuple[int, ...]:
    """One number for each `block_tokens` of the first `num_tokens` tokens in the blocks of `table`.

    `block_tokens` is that of the receiver, at both ends. Reads the bytes, so it takes about a
    second per GiB; zlib lets other threads run meanwhile.
    """
    return tuple(
        zlib.crc32(np.ascontiguousarray(_read(source, table, first, count)).data)
        for first, count in _blocks(num_tokens, block_tokens)
    )


def _blocks(num_tokens: int, block_tokens: int) -> Iterator[tuple[int, int]]:
    for first in range(0, num_tokens, block_tokens):
        yield first, min(block_tokens, num_tokens - first)


def _read(source: PlaneSource, table: BlockTable, first_token: int, num_tokens: int) -> Bytes:
    """[num_planes, num_tokens, token_bytes], wherever the tokens lie."""
    planes = range(source.layout.num_planes)
    parts = [
        source.read(planes, run.first_slot, run.num_tokens) for run in table.runs(first_token, num_tokens)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
