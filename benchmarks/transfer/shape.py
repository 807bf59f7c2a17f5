"""What the transfer benchmark moves, and under which names."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from kv_transfer.pool import kv_layout

CLUSTER = "benchmark"
TOKEN = "benchmark"
FINGERPRINT = "benchmark"
NUM_LAYERS = 12
# Of the 120m checkpoint: 12 layers, 4 KV heads of 64 in bfloat16, 16 tokens: 192 KiB per block.
LAYOUT = kv_layout(
    FINGERPRINT, torch.bfloat16, num_layers=NUM_LAYERS, num_heads=4, head_dim=64, block_tokens=16
)
BLOCK_BYTES = LAYOUT.pool_bytes(1)
SMALL_BLOCKS = 16  # up to here latency counts, and more repeats are cheap
_SIZES_MIB = (12, 64, 256, 1024)


def payloads(max_blocks: int) -> Iterator[int]:
    """Blocks: 1, 4, 16, then some round sizes up to the largest that is wanted."""
    sizes = (1, 4, 16, *(size_mib * 2**20 // BLOCK_BYTES for size_mib in _SIZES_MIB))
    yield from (count for count in sizes if count < max_blocks)
    yield max_blocks
