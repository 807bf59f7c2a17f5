"""The blocks of an engine's sequences: where they come from, and where they go."""

from __future__ import annotations

from bisect import bisect_left

from kv_transfer.blocks import BlockAllocator, OutOfBlocks, blocks_for
from stage_servers.cache.kv_cache import KvCache
from stage_servers.engine.sequence import Sequence


class SequenceBlocks:
    """Over the pool's allocator, and the prefix cache if there is one; used on the engine thread."""

    def __init__(self, blocks: BlockAllocator, block_tokens: int, cache: KvCache | None) -> None:
        self._blocks = blocks
        self._block_tokens = block_tokens
        self._cache = cache

    @property
    def num_room(self) -> int:
        """Blocks that a sequence could have now. Any thread."""
        return self._blocks.num_free + (self._cache.num_unused if self._cache else 0)

    def needed(self, sequence: Sequence) -> int:
        """How much of the room a whole new prompt would take: what others use already it shares."""
        prefix = sequence.prefix
        num_used = bisect_left(prefix.found, True, key=lambda entry: not entry.refs) if prefix else 0
        return blocks_for(len(sequence.tokens), self._block_tokens) - num_used

    def look(self, sequence: Sequence) -> None:
        """Brings up to date what the cache has for a sequence that waits."""
        if self._cache and sequence.prefix and not sequence.is_started:
            sequence.num_cached = self._cache.look(sequence.prefix, sequence.tokens)

    def start(self, sequence: Sequence) -> bool:
        """Gives a new prompt all its blocks, the first of them from the cache; or nothing at all."""
        cache, prefix = self._cache, sequence.prefix
        if cache is None or prefix is None:
            return self.grow(sequence, len(sequence.tokens))
        sequence.blocks = cache.take(prefix, sequence.tokens)
        num_shared = len(sequence.blocks)
        sequence.num_computed = num_shared * self._block_tokens
        if not self.grow(sequence, len(sequence.tokens)):
            blocks, sequence.blocks, sequence.num_computed = sequence.blocks, [], 0
            cache.let_go(prefix.entries, blocks)
            prefix.entries = []
            return False
        tail = cache.take_tail(prefix, sequence.tokens, sequence.blocks[num_shared])
        sequence.num_computed += tail
        sequence.num_cached = sequence.num_computed
        return True

    def grow(self, sequence: Sequence, num_tokens: int) -> bool:
        """Gives the sequence blocks for its first `num_tokens` tokens, or nothing at all."""
        missing = blocks_for(num_tokens, self._block_tokens) - len(sequence.blocks)
        if missing <= 0:
            return True
        if self._cache and missing > self._blocks.num_free:
            self._cache.make_room(missing, sequence.tenant)
        try:
            sequence.blocks += self._blocks.allocate(missing)
        except OutOfBlocks:
            return False
        return True

    def arrived(self, sequence: Sequence) -> None:
        """The KV of a sequence that was computed elsewhere lies in its blocks."""
        if self._cache and sequence.prefix:
            self._cache.arrive(sequence.prefix, sequence.tokens, sequence.blocks, sequence.num_computed)

    def filled(self, sequence: Sequence, num_before: int) -> None:
        """A step computed tokens after the first `num_before`: whole blocks are kept for others."""
        size = self._block_tokens
        if self._cache and sequence.prefix and sequence.num_computed // size > num_before // size:
            self._cache.store(sequence.prefix, sequence.tokens, sequence.blocks, sequence.num_computed)

    def free(self, sequence: Sequence) -> None:
        """Takes all blocks off the sequence; the cache keeps what others may go on from."""
        if self._cache and sequence.prefix:
            self._cache.leave(sequence.prefix, sequence.tokens, sequence.blocks, sequence.num_computed)
        self._blocks.release(sequence.forget_kv())
        if self._cache:
            self._cache.serve_elsewhere()

    def spoil(self, sequence: Sequence) -> None:
        """What the sequence computed or shared is no KV that anyone should have."""
        if self._cache and sequence.prefix:
            self._cache.spoil(sequence.prefix)
            sequence.prefix = None
