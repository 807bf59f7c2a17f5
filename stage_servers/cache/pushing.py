"""The holder's side of a pull: blocks of the cache are pinned, pushed to whoever asked, and unpinned.

A step at hand may be long, and whoever asked waits: what is done in the engine thread is done in one call.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import Generic

from kv_transfer.layout import PayloadKind
from kv_transfer.outgoing import Outgoing
from kv_transfer.pool import Pool
from kv_transfer.prefixes import PrefixRequest, PushedPrefix
from kv_transfer.sender import Sender
from stage_servers.cache.prefix_store import Pinned, PinnedPrefix, PrefixStore
from stage_servers.engine_thread import EngineThread

logger = logging.getLogger(__name__)


class PrefixPushes(Generic[Pinned]):
    """Used on the event loop; the cache is the engine thread's."""

    def __init__(self, store: PrefixStore[Pinned], thread: EngineThread, kv: Pool, sender: Sender) -> None:
        self._store = store
        self._thread = thread
        self._kv = kv
        self._sender = sender
        self._pinned: dict[int, Pinned] = {}  # by number of the push; changed in the engine thread
        self._numbers = itertools.count(1)
        self._pushing: set[asyncio.Task[PushedPrefix]] = set()

    async def push(self, request: PrefixRequest) -> PushedPrefix:
        """What is here of the wanted blocks. Cancelling it leaves nothing pinned. Raises TransferError."""
        task = asyncio.create_task(self._push(request))
        self._pushing.add(task)
        task.add_done_callback(self._pushing.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait((task,))
            raise

    async def stop(self) -> None:
        """Ends all pushes; before the engine thread ends."""
        for task in self._pushing:
            task.cancel()
        await asyncio.gather(*self._pushing, return_exceptions=True)

    def check_idle(self) -> None:
        """Raises AssertionError if something is pinned or pushed."""
        if self._pinned or self._pushing:
            raise AssertionError(f"{len(self._pushing)} prefixes are pushed, {list(self._pinned)} pinned")

    async def _push(self, request: PrefixRequest) -> PushedPrefix:
        number = next(self._numbers)
        outgoing = await self._sender.open(
            request.asker,
            request.key,
            PayloadKind.KV,
            0,
            len(request.block_keys) * request.block_tokens,
            self._kv,
            is_prefix=True,
            skip_tokens=request.first_token,
        )
        try:
            return await self._push_to(outgoing, number, request)
        finally:
            # Pinned in the engine thread, even if this end left meanwhile; this comes after it there.
            self._thread.post(lambda: self._unpin(number))

    async def _push_to(self, outgoing: Outgoing, number: int, request: PrefixRequest) -> PushedPrefix:
        try:
            num_tokens = await self._thread.call(lambda: self._begin(number, request, outgoing))
            if num_tokens == 0:
                return PushedPrefix(0)
            await outgoing.commit(num_tokens)
        finally:
            await outgoing.abort("the push of a prefix ended early")
        asker = request.asker.instance_id
        logger.info("pushed %d tokens of a prefix to %s over %s", num_tokens, asker, outgoing.transport)
        return PushedPrefix(num_tokens, outgoing.transport)

    def _begin(self, number: int, request: PrefixRequest, outgoing: Outgoing) -> int:
        """Pins what is here and has it leave; how many of the wanted tokens, in whole blocks of the asker."""
        pinned = self._store.pin(_own_keys(request, self._kv.layout.block_tokens))
        if pinned is None:
            return 0
        self._pinned[number] = pinned
        num_tokens = _whole_tokens(request, pinned)
        if num_tokens:
            outgoing.push(0, num_tokens, range(self._kv.layout.num_planes), pinned.blocks)
        return num_tokens

    def _unpin(self, number: int) -> None:
        pinned = self._pinned.pop(number, None)
        if pinned is not None:
            self._store.unpin(pinned)


def _own_keys(request: PrefixRequest, block_tokens: int) -> list[bytes]:
    """Those where a block of this instance ends."""
    ends = itertools.count(request.first_token + request.block_tokens, request.block_tokens)
    pairs = zip(request.block_keys, ends, strict=False)
    return [key for key, end in pairs if end % block_tokens == 0]


def _whole_tokens(request: PrefixRequest, pinned: PinnedPrefix) -> int:
    """How many of the wanted ones are pinned, in whole blocks of the asker."""
    num_tokens = max(0, pinned.num_tokens - request.first_token)
    return num_tokens - num_tokens % request.block_tokens
