"""What a request's blocks and embeddings are known by, in the index as on the instances."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from core.cache.chain import GRANULE_TOKENS, MediaRange, extend_chain
from core.cache.keys import chain_start, embedding_key
from core.sequence import CacheUse, MediaSpan

# Hashed before others on the loop have their turn: a quarter of a millisecond's work. A thread would hold the
# interpreter for as long as the hashing takes.
TOKENS_AT_ONCE = 2048


@dataclass(frozen=True, slots=True)
class RequestKeys:
    """Digests of 32 bytes each; those of two requests are equal exactly where they may share."""

    start: bytes  # before the first granule
    chain: tuple[
        bytes, ...
    ] = ()  # of whole granules, without that of the last token, which is computed anyhow
    embeddings: tuple[bytes | None, ...] = ()  # of each media item; None: its identity is not known

    def extended(
        self, tokens: Sequence[int], spans: Sequence[MediaSpan], most_tokens: int | None = None
    ) -> RequestKeys:
        """With the granules that these tokens, the sequence so far, have more; at most so many tokens more.

        The chain ends before the first media item whose identity is not known.
        """
        first = len(self.chain) * GRANULE_TOKENS
        end = min([len(tokens) - 1, *(span.first_token for span in spans if not span.identity)])
        if most_tokens is not None:
            end = min(end, first + most_tokens)
        if end < first + GRANULE_TOKENS:
            return self
        ranges = [MediaRange(s.first_token, s.num_tokens, s.identity) for s in spans if s.identity]
        parent = self.chain[-1] if self.chain else self.start
        return replace(self, chain=(*self.chain, *extend_chain(parent, tokens[first:end], ranges, first)))


def begin_keys(fingerprint: str, cache: CacheUse, spans: Sequence[MediaSpan]) -> RequestKeys:
    """Those of the embeddings, with a chain to be extended."""
    embeddings = (
        embedding_key(fingerprint, cache.salt, span.identity) if span.identity else None for span in spans
    )
    return RequestKeys(chain_start(fingerprint, cache.salt), (), tuple(embeddings))


async def make_keys(
    fingerprint: str, cache: CacheUse, prompt: Sequence[int], spans: Sequence[MediaSpan]
) -> RequestKeys:
    """All keys of a prompt, in steps short enough for an event loop."""
    keys = begin_keys(fingerprint, cache, spans)
    while (longer := keys.extended(prompt, spans, TOKENS_AT_ONCE)) is not keys:
        keys = longer
        if len(prompt) > TOKENS_AT_ONCE:
            await asyncio.sleep(0)
    return keys
