"""CRC-32 per block of the receiver: over the moved heads of its committed tokens.

Plane by plane, token by token, head by head, wherever the two ends keep them.
"""

from __future__ import annotations

import zlib

import numpy as np

from kv_transfer.runs import BlockTable
from kv_transfer.source import PlaneSource, gather


def block_checksums(
    source: PlaneSource, heads: range, table: BlockTable, num_tokens: int, block_tokens: int
) -> tuple[int, ...]:
    """One number for each `block_tokens` of the first `num_tokens` tokens in the blocks of `table`.

    `block_tokens` is that of the receiver and `heads` are those that both hold, at both ends.
    Reads the bytes, so it takes about a second per GiB; zlib lets other threads run meanwhile.
    """
    end, planes = source.end(heads), range(source.layout.num_planes)
    return tuple(
        zlib.crc32(np.ascontiguousarray(gather(source, end, table, planes, tokens)).data)
        for tokens in _blocks(num_tokens, block_tokens)
    )


def _blocks(num_tokens: int, block_tokens: int) -> list[range]:
    return [
        range(first, min(first + block_tokens, num_tokens)) for first in range(0, num_tokens, block_tokens)
    ]
