"""What one instance of a unified cache keeps: the stage servers' own books, with tokens for bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from core.cache.book import CacheBook
from core.cache.entry import Tier
from core.cache.policies import POLICIES
from core.profile import Profile

POLICY = "seconds-saved"
_TENANT = "default"
_KEY_TOKENS = 512  # that a key stands for, about


class Granule(NamedTuple):
    """A stretch of a sequence, named by all before it and itself."""

    key: bytes
    num_tokens: int
    end_token: int


Chain = Sequence[Granule]


class KeptKv:
    """Prefixes. They live in blocks that nothing else needs: what has no room any more is gone when next
    looked at. A sequence that hits has blocks of its own, so nothing here stays in use.
    """

    def __init__(self, profile: Profile, room_tokens: Callable[[], int]) -> None:
        self._profile = profile
        self._room_tokens = room_tokens
        self._policy = POLICIES[POLICY](_KEY_TOKENS)
        self._book = CacheBook(self._policy, profile.kv_tokens)

    def tokens(self, chain: Chain, now_s: float) -> int:
        """Leading tokens that are there."""
        self._shed(self._room_tokens(), now_s)
        return _end_token(chain, len(self._book.match(_keys(chain), now_s)))

    def take(self, chain: Chain, now_s: float) -> int:
        """As `tokens`; they count as used."""
        self._shed(self._room_tokens(), now_s)
        entries, _ = self._book.take(_keys(chain), now_s)
        self._book.release(entries, now_s)
        return _end_token(chain, len(entries))

    def put(self, chain: Chain, now_s: float, more_tokens: int = 0) -> None:
        """`more_tokens`: of room, where the sequence itself lies.

        What is worth least goes first, so that what is new has room.
        """
        keys, room_tokens = _keys(chain), self._room_tokens() + more_tokens
        there = _end_token(chain, len(self._book.match(keys, now_s)))
        needed = sum([each.num_tokens for each in chain if there < each.end_token <= room_tokens])
        self._shed(room_tokens - needed, now_s)
        entries = self._book.match(keys, now_s)
        num_found, kind = len(entries), self._policy.kind_of(keys, len(entries))
        for each in chain[num_found:]:
            if self._book.used_bytes(Tier.DEVICE) + each.num_tokens > room_tokens:
                break
            entry = self._book.store(
                each.key,
                entries[-1] if entries else None,
                (),
                now_s,
                tenant=_TENANT,
                size_bytes=each.num_tokens,
                seconds=self._seconds(each),
                kind=kind,
            )
            assert entry is not None, "there is room, and nothing is flushed"
            entries.append(entry)
        self._book.release(entries[num_found:], now_s)
        self._book.drain()

    def check_integrity(self) -> None:
        self._book.check_integrity()

    def _seconds(self, granule: Granule) -> float:
        before = granule.end_token - granule.num_tokens
        return self._profile.step.prefill_s(granule.num_tokens, self._profile.chunk_tokens, before)

    def _shed(self, room_tokens: int, now_s: float) -> None:
        """Down to so many tokens."""
        over = self._book.used_bytes(Tier.DEVICE) - max(0, room_tokens)
        if over > 0:
            self._book.shed(over, _TENANT, now_s)
            self._book.drain()


class KeptEmbeddings:
    """In a pool of their own."""

    def __init__(self, profile: Profile) -> None:
        self._encode = profile.encode
        self._book = CacheBook(POLICIES[POLICY](_KEY_TOKENS), profile.embedding_tokens)

    def has(self, key: bytes, now_s: float) -> bool:
        return bool(self._book.match((key,), now_s))

    def take(self, key: bytes, now_s: float) -> bool:
        """Whether it is there; it counts as used then."""
        entries, _ = self._book.take((key,), now_s)
        self._book.release(entries, now_s)
        return bool(entries)

    def put(self, key: bytes, num_tokens: int, now_s: float) -> None:
        seconds = self._encode.encode_s(num_tokens)
        entry = self._book.store(key, None, (), now_s, tenant=_TENANT, size_bytes=num_tokens, seconds=seconds)
        if entry is not None:  # not larger than the pool
            self._book.release((entry,), now_s)
        self._book.drain()

    def check_integrity(self) -> None:
        self._book.check_integrity()


def _keys(chain: Chain) -> list[bytes]:
    return [each.key for each in chain]


def _end_token(chain: Chain, num_granules: int) -> int:
    return chain[num_granules - 1].end_token if num_granules else 0
