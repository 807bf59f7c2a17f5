"""What an instance does for and with its peers' caches: pushes prefixes, and pulls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core.sequence import SequenceSpec
from kv_transfer.leases import Key
from kv_transfer.pool import Pool
from kv_transfer.prefixes import PrefixRequest, PushedPrefix
from kv_transfer.receiver import TransferReceiver
from kv_transfer.sender import PeerAddress, Sender
from stage_servers.cache.prefix_source import PrefixSource
from stage_servers.cache.prefix_store import PrefixStore
from stage_servers.cache.pulling import PrefixPulls
from stage_servers.cache.pushing import PrefixPushes
from stage_servers.engine_thread import EngineThread


class PrefixService:
    """Implements PrefixHost."""

    def __init__(
        self,
        store: PrefixStore[Any],
        thread: EngineThread,
        kv: Pool,
        sender: Sender,
        receiver: TransferReceiver,
        *,
        address: Callable[[], PeerAddress],
        timeout_s: float,
    ) -> None:
        """`address` is where peers reach this instance; `timeout_s` is that of PrefixPulls."""
        self._pulls = PrefixPulls(
            store, thread, sender, receiver, layout=kv.layout, address=address, timeout_s=timeout_s
        )
        self._pushes = PrefixPushes(store, thread, kv, sender)

    async def fetch(self, spec: SequenceSpec, source: PrefixSource) -> None:
        """See PrefixPulls."""
        await self._pulls.fetch(spec, source)

    async def push_prefix(self, request: PrefixRequest) -> PushedPrefix:
        return await self._pushes.push(request)

    def expect_prefix(self, key: Key, num_tokens: int) -> None:
        self._pulls.expect(key, num_tokens)

    def on_prefix(self, key: Key, block_ids: list[int], num_tokens: int) -> None:
        self._pulls.came(key, block_ids, num_tokens)

    async def stop(self) -> None:
        """Ends what is under way; before the engine thread ends."""
        await self._pulls.stop()
        await self._pushes.stop()

    def check_idle(self) -> None:
        """Raises AssertionError if something is under way."""
        self._pulls.check_idle()
        self._pushes.check_idle()
