"""KV of a prefix that another instance keeps is fetched before a sequence starts, if that is done in time.

sequence ──► own cache has all of it ────────────────────────────────────────► start
                 │ lacks blocks that the peer has
                 ▼
             one pull for all who lack the same ──► taken into the cache ────► start
                 │ refused, gone, too slow
                 ▼
             start, and compute
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from core.sequence import SequenceSpec
from kv_transfer.errors import TransferError, UnknownRequest
from kv_transfer.layout import PoolLayout
from kv_transfer.leases import Key
from kv_transfer.prefixes import PrefixRequest
from kv_transfer.receiver import TransferReceiver
from kv_transfer.sender import PeerAddress, Sender
from stage_servers.cache.prefix_store import PrefixStore, WantedPrefix
from stage_servers.engine_thread import EngineThread

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Pull:
    """One call to a peer, and who waits for what it brings."""

    key: Key
    wanted: WantedPrefix
    task: asyncio.Task[None] | None = None
    num_waiting: int = 0
    num_tokens: int = 0  # that came


class PrefixPulls:
    """Used on the event loop; the cache is the engine thread's. `address` is where peers reach this instance.

    A sequence waits `timeout_s` at most, and no longer than computing is predicted to take and a turn of the
    engine, as long as those here, which the holder does not interrupt for it; 0: not at all.
    """

    def __init__(
        self,
        store: PrefixStore[Any],
        thread: EngineThread,
        sender: Sender,
        receiver: TransferReceiver,
        *,
        layout: PoolLayout,
        address: Callable[[], PeerAddress],
        timeout_s: float,
    ) -> None:
        self._store = store
        self._thread = thread
        self._sender = sender
        self._receiver = receiver
        self._layout = layout
        self._address = address
        self._timeout_s = timeout_s
        self._num_pulls = 0
        self._pulls: dict[Key, _Pull] = {}
        self._by_block: dict[bytes, _Pull] = {}  # by the first block that is missing

    async def fetch(self, spec: SequenceSpec, holder: PeerAddress, num_tokens: int) -> None:
        """Brings into the cache what the holder has, or had, of the first tokens and this instance has not.

        Whatever goes wrong is logged: then the sequence is computed. Cancelling it ends what nobody else
        waits for.
        """
        if holder.instance_id == self._address().instance_id or not self._timeout_s:
            return
        try:
            await self._fetch(spec, holder, num_tokens)
        except TransferError as error:
            logger.info("%s computes its prefix: %s", spec.request_id, error)
        except Exception:
            logger.exception("fetching the prefix of %s failed", spec.request_id)

    def expect(self, key: Key, num_tokens: int) -> None:
        """See PrefixHost."""
        most = len(self._pull(key).wanted.keys) * self._layout.block_tokens
        if num_tokens > most:
            raise ValueError(f"num_tokens: {num_tokens}, the pull wants {most}")

    def came(self, key: Key, block_ids: list[int], num_tokens: int) -> None:
        """See PrefixHost."""
        pull = self._pull(key)
        if num_tokens % self._layout.block_tokens:
            raise ValueError(f"num_tokens: {num_tokens} are not whole blocks of {self._layout.block_tokens}")
        pull.num_tokens = num_tokens
        self._thread.post(lambda: self._store.adopt(pull.wanted, block_ids))

    async def stop(self) -> None:
        """Ends all pulls."""
        tasks = [pull.task for pull in self._pulls.values() if pull.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def check_idle(self) -> None:
        """Raises AssertionError if a pull is under way."""
        if self._pulls or self._by_block:
            raise AssertionError(f"pulls under way: {list(self._pulls)}")

    def _pull(self, key: Key) -> _Pull:
        pull = self._pulls.get(key)
        if pull is None:
            raise UnknownRequest(f"nobody here waits for {key[0]} (any more)")
        return pull

    async def _fetch(self, spec: SequenceSpec, holder: PeerAddress, num_tokens: int) -> None:
        """Raises TransferError."""
        wanted = await self._look(spec, num_tokens)
        if wanted is None:
            return
        bound_s = self._timeout_s
        if wanted.compute_s is not None:
            bound_s = min(bound_s, wanted.compute_s + self._thread.longest_turn_s)
        try:
            async with asyncio.timeout(bound_s) as deadline:
                while wanted is not None and await self._wait(wanted, holder):
                    wanted = await self._look(spec, num_tokens)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            name = holder.instance_id
            raise TransferError("TIMEOUT", f"{name} did not push it within {bound_s:.3g} s") from error

    async def _look(self, spec: SequenceSpec, num_tokens: int) -> WantedPrefix | None:
        return await self._thread.call(lambda: self._store.wanted(spec, num_tokens))

    async def _wait(self, wanted: WantedPrefix, holder: PeerAddress) -> bool:
        """For one pull; whether more may be had after it, for others may have asked for less."""
        pull = self._by_block.get(wanted.keys[0])
        if pull is None:
            await self._join(self._start(wanted, holder))
            return False
        await self._join(pull)
        return True

    def _start(self, wanted: WantedPrefix, holder: PeerAddress) -> _Pull:
        self._num_pulls += 1
        spec = wanted.spec
        pull = _Pull((f"{spec.request_id} prefix {self._num_pulls}", spec.attempt), wanted)
        self._pulls[pull.key] = self._by_block[wanted.keys[0]] = pull
        pull.task = asyncio.create_task(self._run(pull, holder))
        pull.task.add_done_callback(lambda _: self._ended(pull))
        return pull

    async def _join(self, pull: _Pull) -> None:
        """Waits for its end. The last who leaves ends it."""
        assert pull.task is not None
        pull.num_waiting += 1
        try:
            await asyncio.shield(pull.task)
        finally:
            pull.num_waiting -= 1
            if not pull.num_waiting and not pull.task.done():
                self._forget_block(pull)  # who comes now starts another
                pull.task.cancel()
                await asyncio.wait((pull.task,))

    async def _run(self, pull: _Pull, holder: PeerAddress) -> None:
        """Raises TransferError where nothing came."""
        since_s = time.perf_counter()
        wanted = pull.wanted
        request = PrefixRequest(
            key=pull.key,
            block_keys=wanted.keys,
            first_token=wanted.first_token,
            block_tokens=self._layout.block_tokens,
            model_fingerprint=self._layout.model_fingerprint,
            asker=self._address(),
            holder_epoch=holder.epoch,
        )
        try:
            await self._sender.pull_prefix(holder, request, self._timeout_s)
        except TransferError:
            if not pull.num_tokens:  # else all came, but for the answer
                raise
        if not pull.num_tokens:
            raise TransferError("NOT_FOUND", f"{holder.instance_id} has nothing of it any more")
        taken_s, name = time.perf_counter() - since_s, holder.instance_id
        logger.info(
            "pulled %d tokens from %s in %.3f s for %s",
            pull.num_tokens,
            name,
            taken_s,
            wanted.spec.request_id,
        )

    def _ended(self, pull: _Pull) -> None:
        del self._pulls[pull.key]
        self._forget_block(pull)
        self._receiver.release_request(pull.key, "the pull ended")
        if pull.task is not None and not pull.task.cancelled():
            pull.task.exception()  # whoever waits for it is told; maybe nobody does

    def _forget_block(self, pull: _Pull) -> None:
        first = pull.wanted.keys[0]
        if self._by_block.get(first) is pull:
            del self._by_block[first]
