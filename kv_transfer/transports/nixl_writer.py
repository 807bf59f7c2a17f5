"""Carries one transfer by NIXL writes, a bounded number of them under way."""

from __future__ import annotations

from collections import deque

from core.clock import Clock
from kv_transfer.descriptors import byte_ranges, copies
from kv_transfer.errors import TransferError
from kv_transfer.runs import BlockTable
from kv_transfer.transports.backlog import Batch
from kv_transfer.transports.base import Transfer
from kv_transfer.transports.nixl_peers import Link, NixlPeers
from kv_transfer.transports.place import Place
from kv_transfer.transports.poller import Poller, Turn

SLICE_BYTES = 4 << 20  # of one write
MAX_POSTED = 4  # writes of one transfer under way
STALL_TIMEOUT_S = 20.0  # a write that takes longer never comes
STOP_TIMEOUT_S = 2.0  # for what is under way when the transfer is given up


class NixlWriter:
    """Works in the poller's thread; the loop and the pushing thread only take its place in line.

    Stays in line while a write of it is under way, also after `stop` gave up waiting:
    until then its source stays registered, because NIXL calls no write back.
    """

    def __init__(self, poller: Poller, peers: NixlPeers, transfer: Transfer, clock: Clock) -> None:
        self._peers = peers
        self._transfer = transfer
        self._clock = clock
        self._target = BlockTable(transfer.grant.block_ids, transfer.grant.layout.block_tokens)
        self._place = Place(poller, self)
        self._is_last = False  # nothing is pushed any more
        self._is_stopped = False
        self._is_certain = True  # no write failed, so that those that are over did arrive
        self._error: Exception | None = None
        # From here on for the poller's thread.
        self._link: Link | None = None
        self._held: Batch | None = None  # waits for earlier writes to the same tokens
        self._posted: deque[tuple[int, float]] = deque()  # handle, posted at; oldest first
        self._ends = [0] * transfer.source.layout.num_planes  # tokens posted per plane
        self._size_bytes = 0

    def wake(self) -> None:
        if not self._is_stopped:
            self._place.take()

    async def drain(self) -> int:
        self._is_last = True
        self._place.take()  # to close the link
        await self._place.until(lambda: not self._place.is_taken or self._error is not None)
        if self._error is not None:
            raise self._transfer.error or self._error
        return self._size_bytes

    async def stop(self) -> None:
        if not self._is_stopped:
            self._is_stopped = True
            self._place.take()  # to close the link
        if not await self._place.is_left_within(STOP_TIMEOUT_S) or not self._is_certain:
            error = TransferError("UNCONFIRMED", "writes were under way when the transfer was given up")
            self._fail(error)
            raise error

    def run_turn(self) -> Turn:
        """In the poller's thread."""
        try:
            has_moved = self._reap()
            has_moved |= not self._is_stopped and self._post()
        except Exception as error:
            has_moved = True
            self._is_stopped = True
            self._fail(error)
        return self._next(has_moved)

    def _reap(self) -> bool:
        """Takes writes off the list that are over; whether there were any."""
        over = [handle for handle, _ in self._posted if self._is_over(handle)]
        for handle in over:
            self._peers.agent.release(handle)
        self._posted = deque(each for each in self._posted if each[0] not in over)
        if self._posted and self._clock.now_s() >= self._posted[0][1] + STALL_TIMEOUT_S and not self._error:
            raise TransferError("STALLED", f"a write was not acknowledged for {STALL_TIMEOUT_S:g} s")
        return bool(over)

    def _is_over(self, handle: int) -> bool:
        try:
            return self._peers.agent.is_done(handle)
        except TransferError as error:
            self._is_certain = False
            self._is_stopped = True
            self._fail(error)
            self._peers.retire(self._transfer.peer.instance_id)
            return True

    def _post(self) -> bool:
        """Posts the next write, if there is one and it may go; whether it did."""
        if self._held is None and len(self._posted) < MAX_POSTED:
            self._held = self._transfer.backlog.take(SLICE_BYTES)
        batch = self._held
        if batch is None or (self._posted and self._is_rewrite(batch)):
            return False
        self._write(batch)
        self._held = None
        return True

    def _is_rewrite(self, batch: Batch) -> bool:
        """Whether it writes tokens anew: writes that are under way together have no order."""
        return any(batch.first_token < self._ends[plane] for plane in batch.planes)

    def _write(self, batch: Batch) -> None:
        if self._transfer.grant.deadline.is_over:
            raise TransferError("LEASE_OVER", "the lease ran out before all was written")
        link = self._opened()
        if batch.fence is not None:
            batch.fence.synchronize()
        source = batch.source.runs(batch.first_token, batch.num_tokens)
        target = self._target.runs(batch.first_token, batch.num_tokens)
        moves = copies(link.here, source, link.there, target)
        ranges = byte_ranges(link.here, link.there, batch.planes, moves)
        handle = self._peers.agent.write(link.peer.agent_name, ranges, link.source.memory, link.target)
        self._posted.append((handle, self._clock.now_s()))
        self._size_bytes += int(ranges.lengths.sum())
        for plane in batch.planes:
            self._ends[plane] = max(self._ends[plane], batch.first_token + batch.num_tokens)

    def _opened(self) -> Link:
        if self._link is None:
            self._link = self._peers.open(self._transfer)
        return self._link

    def _next(self, has_moved: bool) -> Turn:
        if self._place.leave_unless(self._has_more):
            return Turn.DONE
        return Turn.MOVED if has_moved else Turn.WAITS

    def _has_more(self) -> bool:
        """Closes the link where there is no more."""
        has_work = self._held is not None or self._transfer.backlog.has_work
        if self._posted or (has_work and not self._is_stopped):
            return True
        if self._link is not None and (self._is_last or self._is_stopped):
            self._peers.close(self._link)
            self._link = None
        return False

    def _fail(self, error: Exception) -> None:
        """Any thread; the first error counts."""
        self._error = self._error or error
        self._transfer.fail(error)
        self._place.tell()
