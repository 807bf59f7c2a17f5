"""What an instance remembers of earlier requests: embeddings by picture, KV by prompt prefix."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class EncoderCache:
    """Embeddings by digest, least recently used first out; `most_tokens` in all."""

    def __init__(self, most_tokens: int) -> None:
        self._most_tokens = most_tokens
        self._kept: OrderedDict[int, int] = OrderedDict()
        self._tokens = 0
        self.hits = 0

    def take(self, digest: int | None) -> bool:
        """Whether the embedding is there; it counts as used then."""
        if digest is None or digest not in self._kept:
            return False
        self._kept.move_to_end(digest)
        self.hits += 1
        return True

    def put(self, digest: int | None, num_tokens: int) -> None:
        if digest is None or digest in self._kept or num_tokens > self._most_tokens:
            return
        self._kept[digest] = num_tokens
        self._tokens += num_tokens
        while self._tokens > self._most_tokens:
            self._tokens -= self._kept.popitem(last=False)[1]


class PrefixCache:
    """Granules of prompts whose KV is still there. It lives in blocks that nothing else needs."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, None] = OrderedDict()
        self.hit_tokens = 0

    def take(self, prefix: Sequence[int], granule_tokens: int) -> int:
        """Leading tokens whose KV is there; they count as used then."""
        hits = 0
        for granule in prefix:
            if granule not in self._kept:
                break
            self._kept.move_to_end(granule)
            hits += 1
        self.hit_tokens += hits * granule_tokens
        return hits * granule_tokens

    def put(self, prefix: Sequence[int], most_granules: int) -> None:
        """Keeps these, and at most so many in all: what the pool has room for now."""
        for granule in prefix:
            self._kept[granule] = None
            self._kept.move_to_end(granule)
        while len(self._kept) > most_granules:
            self._kept.popitem(last=False)
