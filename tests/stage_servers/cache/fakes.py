"""What pulls and pushes of prefixes are tested against: a cache of numbered blocks, a peer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.sampling import SamplingParams
from core.sequence import CacheUse, SequenceSpec
from kv_transfer.errors import TransferError
from kv_transfer.leases import Key
from kv_transfer.prefixes import PrefixRequest, PushedPrefix
from kv_transfer.sender import PeerAddress
from stage_servers.cache.prefix_store import WantedPrefix
from tests.kv_transfer.loopback import KV

BLOCK = KV.block_tokens
HERE = PeerAddress("b", "127.0.0.1:1", "host", 5)
PEER = PeerAddress("a", "127.0.0.1:2", "host", 3)


def spec_of(name: str, num_blocks: int = 4) -> SequenceSpec:
    """All of these have the same prompt, as far as they go."""
    prompt = tuple(range(num_blocks * BLOCK + 1))
    return SequenceSpec(name, 0, prompt, SamplingParams(max_tokens=4), cache=CacheUse(bytes(32), "t"))


def key_of(end_token: int) -> bytes:
    return end_token.to_bytes(32, "big")


@dataclass(frozen=True)
class Pinned:
    blocks: tuple[int, ...]
    num_tokens: int


@dataclass
class FakeStore:
    """Has the KV of the first so many blocks."""

    num_blocks: int = 0
    block_tokens: int = BLOCK
    compute_s: float | None = None
    adopted: list[tuple[tuple[bytes, ...], list[int]]] = field(default_factory=list)
    pinned: list[Pinned] = field(default_factory=list)

    def wanted(self, spec: SequenceSpec, num_tokens: int) -> WantedPrefix | None:
        last = min(num_tokens, len(spec.prompt) - 1) // BLOCK
        if last <= self.num_blocks:
            return None
        keys = tuple(key_of(number * BLOCK) for number in range(self.num_blocks + 1, last + 1))
        return WantedPrefix(spec, keys, self.num_blocks * BLOCK, self.compute_s)

    def adopt(self, wanted: WantedPrefix, blocks: Sequence[int]) -> None:
        self.adopted.append((wanted.keys, list(blocks)))
        self.num_blocks = wanted.first_token // BLOCK + len(blocks)

    def pin(self, keys: Sequence[bytes]) -> Pinned | None:
        size = self.block_tokens
        ends = [int.from_bytes(key, "big") for key in keys]
        assert all(end % size == 0 for end in ends)
        end = max((end for end in ends if end <= self.num_blocks * size), default=0)
        return self.pin_tokens(end) if end else None

    def pin_tokens(self, num_tokens: int) -> Pinned:
        self.pinned.append(Pinned(tuple(range(num_tokens // self.block_tokens)), num_tokens))
        return self.pinned[-1]

    def unpin(self, pinned: Pinned) -> None:
        self.pinned.remove(pinned)


class Thread:
    """Runs calls at once."""

    longest_turn_s = 0.0

    def post(self, call: Callable[[], object]) -> None:
        call()

    async def call(self, function: Callable[[], Any]) -> Any:
        await asyncio.sleep(0)
        return function()


@dataclass
class FakePeer:
    """Plays the sender of the asker, the peer, and the receiver: answers when it may."""

    has_blocks: int = 4
    error: TransferError | None = None
    is_answer_lost: bool = False
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[PrefixRequest] = field(default_factory=list)
    left: int = 0
    released: list[Key] = field(default_factory=list)
    came: Callable[[Key, list[int], int], None] = lambda *_: None

    async def pull_prefix(self, peer: PeerAddress, wanted: PrefixRequest, timeout_s: float) -> PushedPrefix:
        assert (peer, timeout_s) == (PEER, 30.0)
        self.asked.append(wanted)
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.left += 1
            raise
        if self.error is not None:
            raise self.error
        num_blocks = min(len(wanted.block_keys), self.has_blocks - wanted.first_token // BLOCK)
        if num_blocks > 0:
            self.came(wanted.key, list(range(num_blocks)), num_blocks * BLOCK)
        if self.is_answer_lost:
            raise TransferError("UNAVAILABLE", "the connection broke")
        return PushedPrefix(max(0, num_blocks) * BLOCK, "shm")

    def release_request(self, key: Key, reason: str) -> None:
        del reason
        self.released.append(key)
