"""Whether sequences and the books of blocks say the same: for tests, and for when nothing should be held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from kv_transfer.blocks import BlockAllocator
from stage_servers.engine.sequence import Sequence


def check_held(sequences: Collection[Sequence], blocks: BlockAllocator, block_tokens: int) -> None:
    """Raises AssertionError where a block is held more often than it is counted, or KV has no room."""
    held = Counter(block for sequence in sequences for block in sequence.blocks)
    for block, times in held.items():
        if blocks.references(block) < times:
            raise AssertionError(f"block {block} is held {times} times and counted less often")
    for sequence in sequences:
        room = len(sequence.blocks) * block_tokens
        if not 0 <= sequence.num_computed <= min(room, len(sequence.tokens)):
            raise AssertionError(f"{sequence.key}: {sequence.num_computed} tokens computed, room for {room}")


def check_written(sequences: Collection[Sequence], blocks: BlockAllocator, block_tokens: int) -> None:
    """Raises AssertionError where a sequence writes into a block that others hold."""
    for sequence in sequences:
        for block in sequence.blocks[sequence.num_computed // block_tokens :]:
            if blocks.references(block) != 1:
                raise AssertionError(f"{sequence.key} writes into block {block}, which others hold")
