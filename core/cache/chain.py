"""One hash chain over the unified sequence: text and media alike, in granules of 16 tokens.

    start ──► H(start, granule 0) ──► H(digest 0, granule 1) ──► …

A digest stands for all tokens up to the granule's end, the model and the tenant's salt. Where a placeholder's
tokens are a media item's, the granule also holds which item's, and which part of it.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise

from core.cache.keys import DIGEST_BYTES

GRANULE_TOKENS = 16
_TOKEN_BYTES = 4
_GRANULE_BYTES = GRANULE_TOKENS * _TOKEN_BYTES
_TEXT, _MIXED = b"T", b"M"
# Of an item in a granule: its first token there, how many, its own token that the first one is.
_PART = struct.Struct("<IIQ")
# A text granule with its parent is 97 bytes, one block of BLAKE2b: faster than SHA-256, two blocks, even
# where the processor has instructions for that. A copy spares the parsing of the parameters.
_EMPTY = blake2b(digest_size=DIGEST_BYTES, person=b"elasticmm block")


@dataclass(frozen=True, slots=True)
class MediaRange:
    """The placeholder tokens of one media item in the sequence."""

    first_token: int
    num_tokens: int
    identity: bytes  # of core.cache.keys.media_identity

    @property
    def end_token(self) -> int:
        return self.first_token + self.num_tokens

    def __post_init__(self) -> None:
        if self.first_token < 0 or self.num_tokens < 1:
            raise ValueError(f"media: {self.num_tokens} tokens from {self.first_token} on are no range")
        if len(self.identity) != DIGEST_BYTES:
            raise ValueError(f"media: an identity has {DIGEST_BYTES} bytes, not {len(self.identity)}")


def extend_chain(
    parent: bytes, tokens: Sequence[int], media: Sequence[MediaRange] = (), first_token: int = 0
) -> list[bytes]:
    """A digest for every whole granule of `tokens`, which begin at `first_token` of the sequence.

    `parent` is the digest before them: the chain's start or that of the granule before. `media` are those
    of the sequence, in its order; they may begin before and end after these tokens. Raises ValueError for
    media that overlap or are out of order, a parent that is no digest, and a `first_token` within a granule;
    OverflowError for a token id that needs more than 32 bits.
    """
    _check(parent, media, first_token)
    content = _token_bytes(tokens)
    parts = _parts(media, first_token, len(tokens) // GRANULE_TOKENS)
    digests: list[bytes] = []
    copy, append = _EMPTY.copy, digests.append
    for number, at in enumerate(range(0, len(content) - _GRANULE_BYTES + 1, _GRANULE_BYTES)):
        granule = content[at : at + _GRANULE_BYTES]
        hasher = copy()
        if number in parts:
            hasher.update(parent + _MIXED + granule + parts[number])
        else:
            hasher.update(parent + _TEXT + granule)
        parent = hasher.digest()
        append(parent)
    return digests


def block_keys(digests: Sequence[bytes], block_tokens: int) -> list[bytes]:
    """The digests at the ends of a pool's whole blocks, which may hold several granules.

    Raises ValueError for blocks that are not whole granules.
    """
    if block_tokens < GRANULE_TOKENS or block_tokens % GRANULE_TOKENS:
        raise ValueError(f"block_tokens: {block_tokens} are not whole granules of {GRANULE_TOKENS}")
    each = block_tokens // GRANULE_TOKENS
    return list(digests[each - 1 :: each])


def _check(parent: bytes, media: Sequence[MediaRange], first_token: int) -> None:
    if len(parent) != DIGEST_BYTES:
        raise ValueError(f"parent: a digest has {DIGEST_BYTES} bytes, not {len(parent)}")
    if first_token % GRANULE_TOKENS:
        raise ValueError(f"first_token: {first_token} is within a granule")
    for one, other in pairwise(media):
        if other.first_token < one.end_token:
            raise ValueError(f"media: two items at token {other.first_token}")


def _token_bytes(tokens: Sequence[int]) -> bytes:
    content = array("I", tokens)
    if sys.byteorder == "big":
        content.byteswap()
    return content.tobytes()


def _parts(media: Sequence[MediaRange], first_token: int, num_granules: int) -> dict[int, bytes]:
    """What media lies in each granule that has some: parts of one length, so that their bytes can be told
    apart.
    """
    found: dict[int, bytes] = {}
    end_token = first_token + num_granules * GRANULE_TOKENS
    for item in media:
        at, end = max(item.first_token, first_token), min(item.end_token, end_token)
        while at < end:
            number, offset = divmod(at - first_token, GRANULE_TOKENS)
            count = min(GRANULE_TOKENS - offset, end - at)
            part = _PART.pack(offset, count, at - item.first_token) + item.identity
            found[number] = found.get(number, b"") + part
            at += count
    return found
