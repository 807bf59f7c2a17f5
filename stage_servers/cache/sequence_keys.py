"""The keys of a sequence's blocks, made as its tokens come."""

from __future__ import annotations

from collections.abc import Sequence

from core.cache.chain import MediaRange, block_keys, extend_chain
from core.cache.entry import Unit
from core.cache.keys import chain_start
from core.cache.tails import tail_units
from core.sequence import SequenceSpec


class SequenceKeys:
    """Whole blocks and begun ones, by the tokens up to their ends, the media in them, model and salt.

    Nothing from the first media item without an identity on has a key. Raises ValueError for a sequence that
    is not to be cached, and for blocks that are not whole granules.
    """

    def __init__(self, spec: SequenceSpec, model_fingerprint: str, block_tokens: int) -> None:
        if spec.cache is None:
            raise ValueError("cache: the sequence is not to be cached")
        block_keys([], block_tokens)
        self._block_tokens = block_tokens
        self._parent = chain_start(model_fingerprint, spec.cache.salt)
        self._keys: list[bytes] = []
        known = [span for span in spec.media if span.identity]
        self._media = [MediaRange(span.first_token, span.num_tokens, span.identity) for span in known]
        unknown = (span.first_token for span in spec.media if not span.identity)
        self._end_token = min(unknown, default=None)

    def of(self, tokens: Sequence[int], num_tokens: int) -> list[bytes]:
        """Of the whole blocks within the first `num_tokens`; `tokens` only grow from call to call."""
        end = num_tokens if self._end_token is None else min(num_tokens, self._end_token)
        num_blocks = end // self._block_tokens
        if num_blocks > len(self._keys):
            self._extend(tokens, num_blocks)
        return self._keys if num_blocks == len(self._keys) else self._keys[:num_blocks]

    def tail(self, tokens: Sequence[int], first: int, end: int) -> tuple[Unit, ...]:
        """The tokens of a begun block, as far as they can be told by others."""
        end = end if self._end_token is None else min(end, self._end_token)
        return tail_units(tokens[first : max(first, end)], self._media, first)

    def _extend(self, tokens: Sequence[int], num_blocks: int) -> None:
        first = len(self._keys) * self._block_tokens
        media = [item for item in self._media if item.end_token > first]
        part = tokens[first : num_blocks * self._block_tokens]
        digests = extend_chain(self._parent, part, media, first)
        self._keys += block_keys(digests, self._block_tokens)
        self._parent = digests[-1]
