"""Migration: a decoding sequence goes to another instance between two steps.

    engine    step  step  step  step  step │ frozen │
    copy      ══ all KV so far ══╪═ new ═╪═│═ rest ═│ commit ──► decodes on there

Blocks are copied while the sequence decodes on. Once the copy has kept up, the sequence is frozen between two
steps, what the last steps added follows, and the commit hands over its outputs. Whatever goes wrong, the
sequence goes on here as if nothing had been.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError as ThreadCancelled
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from kv_transfer.errors import TransferError
from kv_transfer.layout import PayloadKind
from kv_transfer.pool import Pool
from kv_transfer.sender import Outgoing, PeerAddress, Sender
from stage_servers.engine_thread import EngineThread
from stage_servers.kv_copy import Frozen, KvCopy
from stage_servers.reports import Key, Reports

if TYPE_CHECKING:
    from stage_servers.engine.engine import Engine
    from stage_servers.engine.records import DecodeState

logger = logging.getLogger(__name__)
T = TypeVar("T")

ROOM_TOKENS = 256  # that a sequence may grow by while it is copied


@dataclass(frozen=True, slots=True)
class MigrationTimeouts:
    """How long each part may take before the sequence stays where it is."""

    open_s: float = 10.0  # until the target has room
    copy_s: float = 60.0  # while the sequence decodes on
    commit_s: float = 3.0  # while it stands still


class MigrationStage:
    """Moves sequences away; `on_moved` is told of each that decodes elsewhere from now on."""

    def __init__(
        self,
        engine: Engine,
        thread: EngineThread,
        kv: Pool,
        sender: Sender,
        reports: Reports,
        *,
        on_moved: Callable[[Key], None],
        timeouts: MigrationTimeouts | None = None,
    ) -> None:
        self._engine = engine
        self._thread = thread
        self._kv = kv
        self._sender = sender
        self._reports = reports
        self._on_moved = on_moved
        self._timeouts = timeouts or MigrationTimeouts()
        self._moving: set[Key] = set()

    async def run(self, key: Key, new_attempt: int, target: PeerAddress) -> None:
        """Moves one sequence to `target`, which knows it under the new attempt; reports how that went.

        Cancelling leaves the sequence here, without a report.
        """
        if key in self._moving:
            self._reports.stayed(key, new_attempt, "the sequence is being moved already")
            return
        self._moving.add(key)
        has_moved = False
        try:
            await self._move(key, new_attempt, target)
            has_moved = True
        except (asyncio.CancelledError, ThreadCancelled):
            raise
        except Exception as error:
            logger.warning("moving %s to %s failed: %s", key[0], target.instance_id, error)
            self._reports.stayed(key, new_attempt, str(error) or repr(error))
        finally:
            # After the report: tokens made from here on must not reach the coordinator before it.
            if not has_moved:
                self._thread.post(lambda: self._engine.resume(key))
            self._moving.discard(key)

    async def _move(self, key: Key, new_attempt: int, target: PeerAddress) -> None:
        state = await self._thread.call(lambda: self._engine.decode_state(key))
        room_tokens = min(state.num_tokens + ROOM_TOKENS, state.most_tokens)
        outgoing = await self._open(target, (key[0], new_attempt), room_tokens)
        try:
            frozen = await self._copy(key, outgoing, room_tokens)
            await self._commit(outgoing, frozen.state)
        except BaseException:
            await outgoing.abort("the migration ended early")
            raise
        self._moved(key, new_attempt, outgoing.transport, frozen)

    async def _open(self, target: PeerAddress, new_key: Key, num_tokens: int) -> Outgoing:
        what = "the target gave no room"
        return await _within(
            self._timeouts.open_s,
            what,
            self._sender.open(target, new_key, PayloadKind.KV, 0, num_tokens, self._kv),
        )

    async def _copy(self, key: Key, outgoing: Outgoing, room_tokens: int) -> Frozen:
        copy = KvCopy(self._engine, key, outgoing, self._kv.layout.num_planes)

        async def look_until_frozen() -> Frozen:
            """The engine's steps set the pace: a call waits for the step at hand."""
            while True:
                frozen = await self._thread.call(lambda: copy.look(room_tokens))
                if frozen is not None:
                    return frozen

        return await _within(self._timeouts.copy_s, "the copy was not done", look_until_frozen())

    async def _commit(self, outgoing: Outgoing, state: DecodeState) -> None:
        committing = outgoing.commit(state.num_tokens, state.outputs)
        await _within(self._timeouts.commit_s, "the target did not confirm", committing)

    def _moved(self, key: Key, new_attempt: int, transport: str, frozen: Frozen) -> None:
        pause_ns = time.monotonic_ns() - frozen.since_ns
        self._thread.post(lambda: self._engine.release(key))
        layout = self._kv.layout
        size_bytes = frozen.state.num_tokens * layout.num_planes * layout.token_bytes
        self._on_moved(key)
        self._reports.moved(key, new_attempt, pause_ns=pause_ns, size_bytes=size_bytes, transport=transport)


async def _within(timeout_s: float, what: str, work: Awaitable[T]) -> T:
    """Awaits `work`, which cleans up when it is cancelled; raises TransferError where it takes too long."""
    try:
        async with asyncio.timeout(timeout_s) as deadline:
            return await work
    except TimeoutError as error:
        if not deadline.expired():
            raise
        raise TransferError("TIMEOUT", f"{what} within {timeout_s:g} s") from error
