"""One transfer as its sender holds it: push, then commit or abort."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Sequence
from enum import Enum
from typing import Protocol

from core.clock import Clock
from kv_transfer.blocks import blocks_for
from kv_transfer.checksums import block_checksums
from kv_transfer.commits import Arrived, CommitRecord, Promise
from kv_transfer.errors import TransferError
from kv_transfer.pace import PacedLink
from kv_transfer.stats import TransferStats
from kv_transfer.transports.backlog import LITTLE_BYTES
from kv_transfer.transports.base import CommittingWriter, PeerAddress, Transfer, Writer

logger = logging.getLogger(__name__)


class OutgoingState(Enum):
    OPEN = "open"
    COMMITTED = "committed"  # the receiver acknowledged
    ENDED = "ended"  # aborted or failed; nothing is written any more


class LeaseCalls(Protocol):
    """What an Outgoing asks of its sender."""

    async def commit_lease(self, peer: PeerAddress, record: CommitRecord) -> Arrived:
        """Over gRPC; repeating is harmless. Raises TransferError."""

    async def abort_lease(self, peer: PeerAddress, lease_id: int, reason: str) -> None:
        """Tells the receiver that nothing is written any more, if it can be reached; raises nothing."""

    def ended(self, outgoing: Outgoing) -> None:
        """The lease is over at this end."""


class Outgoing:
    """Ends with `commit` or `abort`, whatever happens; a failed commit has cleaned up.

    `push` is for the engine thread, the rest for the sender's loop. Source blocks
    must keep their content until `commit` or `abort` returned.
    """

    def __init__(
        self,
        transfer: Transfer,
        writer: Writer,
        calls: LeaseCalls,
        stats: TransferStats,
        clock: Clock,
        *,
        link: PacedLink | None = None,
    ) -> None:
        self.state = OutgoingState.OPEN
        self.transfer = transfer
        self._writer = writer
        self._committing = writer if isinstance(writer, CommittingWriter) else None
        self._calls = calls
        self._stats = stats
        self._clock = clock
        self._link = link
        self._passed_at_s = 0.0  # when all that was pushed has passed the paced link
        self._granted_at_s = clock.now_s()
        stats.in_flight += 1

    @property
    def peer(self) -> PeerAddress:
        return self.transfer.peer

    @property
    def lease_id(self) -> int:
        return self.transfer.grant.lease_id

    @property
    def transport(self) -> str:
        """Name of the transport in use."""
        return self.transfer.grant.transport

    @property
    def is_behind(self) -> bool:
        """Whether more was pushed and not written than a commit takes along in passing. Any thread."""
        return self.transfer.backlog.waiting_bytes > LITTLE_BYTES

    @property
    def error(self) -> Exception | None:
        """Why `commit` will fail, as soon as that is known."""
        return self.transfer.error

    def push(self, first_token: int, num_tokens: int, planes: range, source_blocks: Sequence[int]) -> None:
        """Tokens of some planes are in the source and may leave. Returns at once; any one thread.

        Every plane starts at token 0 and has no gaps; tokens that were pushed
        before (a sequence computed again) are sent again. `source_blocks` are the
        sequence's blocks from token 0 on. After the end this does nothing.

        Raises ValueError for tokens outside the lease or after a gap.
        """
        if self.state is not OutgoingState.OPEN or self.error is not None:
            return
        transfer = self.transfer
        if self._link is not None:
            layout = transfer.source.layout
            share = len(planes) / layout.num_planes
            self._passed_at_s = self._link.occupy(layout.kind, num_tokens * share)
        transfer.backlog.push(first_token, num_tokens, planes, source_blocks, transfer.source.fence())
        self._writer.wake()

    async def commit(self, num_tokens: int, outputs: Sequence[int] = ()) -> None:
        """Waits until all that was pushed is written, then hands it over.

        Raises TransferError; then the lease is given up and this end is clean.
        """
        self._check_open()
        try:
            promise = await self._promise(num_tokens, tuple(outputs))
            if self._link is not None:
                await self._link.wait_until(self._passed_at_s)
            self._check_open()
            arrived = await self._commit_past_grpc(promise)
            size_bytes = await self._write_rest()
            self._check_open()
            if arrived is None:
                arrived = await self._calls.commit_lease(self.peer, promise.record(size_bytes))
                self._check_open()
            _check_arrived(arrived, promise.expected)
        except BaseException as error:
            await self._give_up(f"the sender failed: {error}", _cause(error))
            raise
        self._end(OutgoingState.COMMITTED)
        self._stats.committed += 1
        self._stats.size_bytes += size_bytes
        self._stats.seconds += self._clock.now_s() - self._granted_at_s

    async def abort(self, reason: str) -> None:
        """Stops writing and gives the lease up. Does nothing after the end; raises nothing."""
        if self.state is OutgoingState.OPEN:
            await self._give_up(reason, None)

    async def lose(self, error: TransferError) -> None:
        """The lease is lost: writing stops, and `commit` raises this."""
        if self.state is OutgoingState.OPEN:
            self.transfer.fail(error)
            with contextlib.suppress(TransferError):  # said again when the transfer is given up
                await self._writer.stop()

    async def _promise(self, num_tokens: int, outputs: tuple[int, ...]) -> Promise:
        self._check_writing()
        transfer = self.transfer
        missing = transfer.backlog.missing(num_tokens)
        if missing:
            raise TransferError("INCOMPLETE", f"num_tokens: {missing}")
        checksums: tuple[int, ...] = ()
        if transfer.grant.wants_checksums:
            checksums = await asyncio.to_thread(_checksums, transfer, num_tokens)
        num_blocks = blocks_for(num_tokens, transfer.grant.layout.block_tokens)
        expected = Arrived(num_tokens, transfer.grant.layout.num_planes, num_blocks)
        return Promise(self.lease_id, num_tokens, outputs, checksums, expected)

    async def _commit_past_grpc(self, promise: Promise) -> Arrived | None:
        """None: no such way, or no answer came by it."""
        return None if self._committing is None else await self._committing.commit(promise)

    async def _write_rest(self) -> int:
        try:
            size_bytes = await self._writer.drain()
        except Exception as error:
            raise _writing_failed(error) from error
        self._check_writing()  # the lease may have been lost while all was written
        return size_bytes

    async def _give_up(self, reason: str, cause: str | None) -> None:
        """Ends the transfer even where the caller is being cancelled."""
        if self.state is not OutgoingState.OPEN:
            return  # by `abort`, while a commit was under way
        self._end(OutgoingState.ENDED)
        if cause is None:
            self._stats.aborted += 1
        else:
            self._stats.failures[cause] += 1
        await _finish(self._stop_and_tell(reason))

    async def _stop_and_tell(self, reason: str) -> None:
        try:
            await self._writer.stop()
        except TransferError as error:  # bytes may still land: the lease must run into its quarantine
            logger.warning(
                "lease %d at %s is left to expire: %s", self.lease_id, self.peer.instance_id, error
            )
            return
        await self._calls.abort_lease(self.peer, self.lease_id, reason)

    def _check_writing(self) -> None:
        if self.error is not None:
            raise _writing_failed(self.error)

    def _check_open(self) -> None:
        if self.state is not OutgoingState.OPEN:
            raise TransferError("ENDED", f"the transfer is {self.state.value} already")

    def _end(self, state: OutgoingState) -> None:
        self.state = state
        self._stats.in_flight -= 1
        self._calls.ended(self)


def _checksums(transfer: Transfer, num_tokens: int) -> tuple[int, ...]:
    """Of the source, per block of the receiver; in a thread."""
    pushed = transfer.backlog.whole(num_tokens)
    if pushed.fence is not None:
        pushed.fence.synchronize()
    block_tokens = transfer.grant.layout.block_tokens
    return block_checksums(transfer.source, transfer.heads, pushed.source, num_tokens, block_tokens)


def _check_arrived(arrived: Arrived, expected: Arrived) -> None:
    if arrived != expected:
        raise TransferError("INCOMPLETE", f"{expected} was committed, the receiver found {arrived}")


def _writing_failed(error: Exception) -> TransferError:
    if isinstance(error, TransferError):
        return error
    return TransferError("INTERNAL", f"writing failed: {error!r}")


async def _finish(work: Awaitable[None]) -> None:
    """Waits for `work`; a caller that is cancelled meanwhile leaves it running."""
    await asyncio.shield(asyncio.ensure_future(work))


def _cause(error: BaseException) -> str:
    if isinstance(error, TransferError):
        return error.cause
    return "CANCELLED" if isinstance(error, asyncio.CancelledError) else "INTERNAL"
