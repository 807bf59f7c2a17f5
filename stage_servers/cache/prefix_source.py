"""Where the KV of a prefix may be had."""

from __future__ import annotations

from dataclasses import dataclass

from kv_transfer.sender import PeerAddress


@dataclass(frozen=True, slots=True)
class PrefixSource:
    """Who has the KV of a sequence's first tokens, or had."""

    peer: PeerAddress
    num_tokens: int
