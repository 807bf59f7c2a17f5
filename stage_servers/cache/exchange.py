"""Prefixes that go from one instance's KV cache to another's.

asker     missing ──────► keys
holder                    pinned(keys) ──► its blocks are copied ──► unpin
asker     adopt(blocks) ◄──────────────────────┘
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from core.cache.entry import Entry
from stage_servers.cache.kv_cache import KvCache
from stage_servers.cache.prefix import PinnedPrefix, Prefix


class PrefixExchange:
    """Both ends' part; used on the engine thread."""

    def __init__(self, cache: KvCache) -> None:
        self._cache = cache

    def missing(
        self, prefix: Prefix, tokens: Sequence[int], num_tokens: int, key_tokens: int
    ) -> tuple[int, list[bytes]]:
        """What is to be asked of who has the first `num_tokens` tokens: how many are here, and the keys after
        them, at the ends of every `key_tokens` tokens. Nothing is kept for the asker meanwhile.

        Raises ValueError for `key_tokens` that are not whole blocks of this instance.
        """
        block_tokens = self._cache.block_tokens
        if key_tokens % block_tokens:
            raise ValueError(f"key_tokens: {key_tokens} are not whole blocks of {block_tokens}")
        num_here = self._cache.look(prefix, tokens)
        most = min(num_tokens, len(tokens) - 1)
        keys = prefix.keys.of(tokens, most)
        ends = range(key_tokens, len(keys) * block_tokens + 1, key_tokens)
        return num_here, [keys[end // block_tokens - 1] for end in ends if end > num_here]

    def pinned(self, keys: Sequence[bytes]) -> PinnedPrefix | None:
        """The longest prefix that ends with one of the leading `keys` and is here, brought to the device as
        far as there is room; it stays until `unpin`. None: nothing of it is here.
        """
        found = self._cache.match(keys)
        if not found:
            return None
        held = self._cache.hold(_chain(found[-1]))
        if not held:
            return None
        return PinnedPrefix(tuple(held), len(held) * self._cache.block_tokens)

    def unpin(self, pinned: PinnedPrefix) -> None:
        """Its blocks may go again."""
        self._cache.let_go(pinned.chain)

    def adopt(self, prefix: Prefix, tokens: Sequence[int], blocks: Sequence[int], first_token: int) -> int:
        """Takes over `blocks`, which the caller holds and which have the KV of whole blocks of tokens from
        `first_token` on: they become entries, or are freed. Returns how many leading tokens are here then.

        Before the sequence starts; it is not in use by it after this. Raises ValueError for a first token
        within a block.
        """
        cache = self._cache
        number, within = divmod(first_token, cache.block_tokens)
        if within:
            raise ValueError(f"first_token: {first_token} is within a block of {cache.block_tokens}")
        keys = prefix.keys.of(tokens, first_token + len(blocks) * cache.block_tokens)
        prefix.entries = cache.hold(cache.match(keys[:number]), prefix.tenant)
        if len(prefix.entries) == number:
            pairs = zip(keys[number:], blocks, strict=False)
            cache.num_pulled += sum(1 for _ in takewhile(lambda pair: cache.put(prefix, *pair), pairs))
        cache.let_go(prefix.entries, blocks)
        prefix.entries = []
        return cache.look(prefix, tokens)


def _chain(entry: Entry) -> list[Entry]:
    """All from the first block on to this one."""
    chain: list[Entry] = []
    at: Entry | None = entry
    while at is not None:
        chain.append(at)
        at = at.parent
    return chain[::-1]
