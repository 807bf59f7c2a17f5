"""KV of a prefix that another instance keeps: how it is asked for by its keys, and what both owners do.

    asker ── PullPrefix(keys) ──► holder
    asker ◄── Open, Write, Commit (is_prefix) ── holder      a lease like any other, on blocks of the asker
    asker ◄── so many tokens ── holder

What the keys stand for is the owners' business: equal keys, equal content.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from kv_transfer.leases import Key
from kv_transfer.offers import NoSuchPool
from kv_transfer.transports.base import PeerAddress

KEY_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixRequest:
    """What the asker wants pushed."""

    key: Key  # made for this one pull: no sequence has it
    block_keys: tuple[bytes, ...]  # KEY_BYTES each, in order, at the ends of the asker's blocks
    first_token: int  # of the first of these blocks; the asker has those before
    block_tokens: int  # per key
    model_fingerprint: str
    asker: PeerAddress
    holder_epoch: int  # as the asker knows it; another one is refused


@dataclass(frozen=True, slots=True)
class PushedPrefix:
    """What the holder pushed: all of it has been committed."""

    num_tokens: int  # from the first wanted one on; 0: nothing is here any more
    transport: str = ""


class PrefixHost(Protocol):
    """The owner of a cache, at both ends. Called on the transfer service's loop; none of it may block."""

    async def push_prefix(self, request: PrefixRequest) -> PushedPrefix:
        """At the holder: pushes what is here of the wanted blocks, up to a gap; cancelled at the asker's
        deadline. Raises TransferError where the asker did not take it.
        """

    def expect_prefix(self, key: Key, num_tokens: int) -> None:
        """At the asker: raises UnknownRequest if no pull of that key waits for so many tokens (any more)."""

    def on_prefix(self, key: Key, block_ids: list[int], num_tokens: int) -> None:
        """At the asker: the first `num_tokens` wanted tokens are in these blocks, which are the owner's from
        here on. Raises UnknownRequest if nobody waits: then the blocks stay the receiver's.
        """


class NoPrefixes:
    """A PrefixHost for an instance that keeps none."""

    async def push_prefix(self, request: PrefixRequest) -> PushedPrefix:
        del request
        raise NoSuchPool("keys: this instance keeps no prefixes")

    def expect_prefix(self, key: Key, num_tokens: int) -> None:
        del key, num_tokens
        raise NoSuchPool("is_prefix: this instance keeps no prefixes")

    def on_prefix(self, key: Key, block_ids: list[int], num_tokens: int) -> None:
        del key, block_ids, num_tokens
        raise NoSuchPool("is_prefix: this instance keeps no prefixes")
