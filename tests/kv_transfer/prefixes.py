"""Owners of caches for the tests of prefixes: keys are numbers, each of so many tokens of a source pool."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from kv_transfer.errors import UnknownRequest
from kv_transfer.layout import PayloadKind
from kv_transfer.leases import Key
from kv_transfer.pool import Pool
from kv_transfer.prefixes import KEY_BYTES, PrefixRequest, PushedPrefix
from kv_transfer.sender import PeerAddress, Sender
from tests.kv_transfer.loopback import FINGERPRINT, Receiving

PULL: Key = ("req-1 prefix 1", 0)


def key_of(number: int) -> bytes:
    return number.to_bytes(KEY_BYTES, "big")


@dataclass
class HoldingHost:
    """Has the first `num_tokens` tokens of a sequence in `blocks` of the source."""

    sender: Sender
    source: Pool
    blocks: Sequence[int]
    num_tokens: int
    leaves_out: int = 0  # of the tokens that it opened for, found to be gone when it commits
    num_pinned: int = 0
    num_pushes: int = 0

    async def push_prefix(self, request: PrefixRequest) -> PushedPrefix:
        ends = [int.from_bytes(key) for key in request.block_keys]
        end = max((end for end in ends if end <= self.num_tokens), default=0)
        if not end:
            return PushedPrefix(0)
        self.num_pinned += 1
        try:
            return await self._push(request, end)
        finally:
            self.num_pinned -= 1

    async def _push(self, request: PrefixRequest, end: int) -> PushedPrefix:
        first, block_tokens = request.first_token, self.source.layout.block_tokens
        outgoing = await self.sender.open(
            request.asker,
            request.key,
            PayloadKind.KV,
            0,
            end - first,
            self.source,
            is_prefix=True,
            skip_tokens=first % block_tokens,
        )
        num_tokens = end - first - self.leaves_out
        try:
            self.num_pushes += 1
            outgoing.push(0, num_tokens, range(6), self.blocks[first // block_tokens :])
            await outgoing.commit(num_tokens)
        finally:
            await outgoing.abort("the push ended early")
        return PushedPrefix(num_tokens, outgoing.transport)

    def expect_prefix(self, key: Key, num_tokens: int) -> None:
        raise NotImplementedError

    def on_prefix(self, key: Key, block_ids: list[int], num_tokens: int) -> None:
        raise NotImplementedError


@dataclass
class AskingHost:
    """Waits for some pulls and remembers what came."""

    known: set[Key] = field(default_factory=lambda: {PULL})
    expected: list[tuple[Key, int]] = field(default_factory=list)
    came: list[tuple[Key, list[int], int]] = field(default_factory=list)
    refuses: bool = False

    async def push_prefix(self, request: PrefixRequest) -> PushedPrefix:
        raise NotImplementedError

    def expect_prefix(self, key: Key, num_tokens: int) -> None:
        self.expected.append((key, num_tokens))
        if key not in self.known:
            raise UnknownRequest(f"nobody pulls {key[0]}")

    def on_prefix(self, key: Key, block_ids: list[int], num_tokens: int) -> None:
        if self.refuses:
            raise UnknownRequest("nobody waits any more")
        self.came.append((key, block_ids, num_tokens))


@dataclass
class Pair:
    """A holder, and an asker whose pool may have another block size."""

    holder: Receiving
    holding: HoldingHost
    asker: Receiving
    asking: AskingHost
    caller: Sender  # of the asker

    def request(self, ends: Sequence[int], **fields: object) -> PrefixRequest:
        """For the tokens up to each of `ends`."""
        block_tokens = self.asker.kv.layout.block_tokens
        good = {
            "key": PULL,
            "block_keys": tuple(map(key_of, ends)),
            "first_token": ends[0] - block_tokens,
            "block_tokens": block_tokens,
            "model_fingerprint": FINGERPRINT,
            "asker": self.asker.address,
            "holder_epoch": self.holder.address.epoch,
        }
        return PrefixRequest(**(good | fields))  # type: ignore[arg-type]

    async def pull(self, ends: Sequence[int], timeout_s: float = 30.0, **fields: object) -> PushedPrefix:
        return await self.caller.pull_prefix(self.holder.address, self.request(ends, **fields), timeout_s)

    def pulling(self, ends: Sequence[int]) -> asyncio.Task[PushedPrefix]:
        return asyncio.create_task(self.pull(ends))

    def release_what_came(self) -> None:
        for _, blocks, _ in self.asking.came:
            self.asker.kv.blocks.release(blocks)

    def assert_nothing_is_held(self) -> None:
        assert self.holding.num_pinned == 0
        self.holding.sender.check_idle()
        self.holder.assert_nothing_is_held()
        self.asker.assert_nothing_is_held()


def elsewhere(peer: PeerAddress) -> PeerAddress:
    """The same, but for a port where nobody listens."""
    return PeerAddress(peer.instance_id, "127.0.0.1:1", peer.host_id, peer.epoch)
