"""How long it takes to know a prompt of 32k tokens by its chain, and what other hashes would take."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from core.cache.chain import GRANULE_TOKENS, MediaRange, extend_chain
from core.cache.keys import chain_start

TOKENS = 32 * 1024
_PICTURE_TOKENS = 4000
_ROUNDS = 15
_LINK_BYTES = 32 + 1 + 4 * GRANULE_TOKENS  # the digest before, a tag, token ids

_EMPTY = hashlib.blake2b(digest_size=32)


@dataclass(frozen=True, slots=True)
class ChainFigures:
    """Milliseconds, the best of some rounds. `*_links_ms`: as many bare links of a chain by that hash."""

    text_ms: float
    media_ms: float  # eight pictures of 4,000 tokens
    blake2b_links_ms: float
    sha256_links_ms: float


def measure_chain() -> ChainFigures:
    rng, start = random.Random(0), chain_start("model", b"tenant")
    tokens = tuple(rng.randrange(150_000) for _ in range(TOKENS))
    space = TOKENS // 8
    media = [MediaRange(at * space + 7, _PICTURE_TOKENS, rng.randbytes(32)) for at in range(8)]
    return ChainFigures(
        text_ms=_best_ms(partial(extend_chain, start, tokens)),
        media_ms=_best_ms(partial(extend_chain, start, tokens, media)),
        blake2b_links_ms=_best_ms(partial(_links, _blake2b)),
        sha256_links_ms=_best_ms(partial(_links, _sha256)),
    )


def _blake2b(data: bytes) -> bytes:
    hasher = _EMPTY.copy()
    hasher.update(data)
    return hasher.digest()


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _links(digest_of: Callable[[bytes], bytes]) -> None:
    digest, rest = bytes(32), bytes(_LINK_BYTES - 32)
    for _ in range(TOKENS // GRANULE_TOKENS):
        digest = digest_of(digest + rest)


def _best_ms(call: Callable[[], object]) -> float:
    found_s = []
    for _ in range(_ROUNDS):
        start_s = time.perf_counter()
        call()
        found_s.append(time.perf_counter() - start_s)
    return min(found_s) * 1e3
