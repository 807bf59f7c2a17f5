"""Carries one transfer by copies on a side stream."""

from __future__ import annotations

from collections.abc import Callable

import torch

from kv_transfer.descriptors import End, copies
from kv_transfer.errors import TransferError
from kv_transfer.runs import BlockTable
from kv_transfer.source import strided
from kv_transfer.transports.backlog import Batch
from kv_transfer.transports.base import Transfer
from kv_transfer.transports.cuda_driver import CopyStream, Done
from kv_transfer.transports.place import Place
from kv_transfer.transports.poller import Poller, Turn

SLICE_BYTES = 64 << 20  # put on the stream for one transfer before the next has its turn
# Likewise, within one card: what it copies in some hundred microseconds, the host's time for a slice.
CARD_SLICE_BYTES = 512 << 20
MAX_BEHIND = 4  # slices of one transfer on the stream, so that others get their share of it
STOP_TIMEOUT_S = 10.0


class CudaWriter:
    """Works in the poller's thread, which puts copies on the stream and looks how far it is."""

    def __init__(
        self,
        poller: Poller,
        transfer: Transfer,
        *,
        target: torch.Tensor,
        there: End,
        stream: CopyStream,
        close: Callable[[], None],
    ) -> None:
        """`target` is the peer's pool, bytes [size_bytes], which `there` describes; `close` lets go of it."""
        self._transfer = transfer
        self._source = transfer.source.elements.view(torch.uint8)
        self._here = transfer.source.end(transfer.heads)
        self._target = target
        self._there = there
        self._table = BlockTable(transfer.grant.block_ids, transfer.grant.layout.block_tokens)
        self._stream = stream
        self._close: Callable[[], None] | None = close
        self._place = Place(poller, self)
        is_one_card = target.is_cuda and target.device == self._source.device
        self._slice_bytes = CARD_SLICE_BYTES if is_one_card else SLICE_BYTES
        self._is_last = False  # nothing is pushed any more
        self._is_stopped = False
        self._error: Exception | None = None
        self._behind: list[Done] = []  # marks after each slice, oldest first
        self._size_bytes = 0

    def wake(self) -> None:
        if not self._is_stopped:
            self._place.take()

    async def drain(self) -> int:
        self._is_last = True
        self._place.take()  # to let go of the target
        await self._place.until(lambda: not self._place.is_taken)
        if self._error is not None:
            raise self._error
        return self._size_bytes

    async def stop(self) -> None:
        self._is_stopped = True
        self._place.take()  # to let go of the target
        if not await self._place.is_left_within(STOP_TIMEOUT_S):
            raise TransferError("UNCONFIRMED", "copies were under way when the transfer was given up")

    def run_turn(self) -> Turn:
        """In the poller's thread."""
        try:
            has_moved = self._look_behind()
            has_moved |= not self._is_stopped and self._put()
        except Exception as error:
            has_moved = True
            self._is_stopped = True
            self._error = self._error or error
            self._transfer.fail(error)
        if self._place.leave_unless(self._has_more):
            return Turn.DONE
        return Turn.MOVED if has_moved else Turn.WAITS

    def _look_behind(self) -> bool:
        """Takes marks off that were reached; whether there were any."""
        try:
            is_any = bool(self._behind) and self._behind[0].is_reached
        except RuntimeError:  # the device failed, and with it all that was on the stream
            self._behind.clear()
            raise
        if is_any:
            del self._behind[0]
        return is_any

    def _put(self) -> bool:
        """Puts the next slice on the stream, if there is one and it may go; whether it did."""
        if len(self._behind) >= MAX_BEHIND:
            return False
        batch = self._transfer.backlog.take(self._slice_bytes)
        if batch is None:
            return False
        if self._transfer.grant.deadline.is_over:
            raise TransferError("LEASE_OVER", "the lease ran out before all was written")
        try:
            self._copy(batch)
        finally:
            self._behind.append(self._stream.record())
        return True

    def _copy(self, batch: Batch) -> None:
        if batch.fence is not None:
            self._stream.wait(batch.fence)
        source = batch.source.runs(batch.first_token, batch.num_tokens)
        target = self._table.runs(batch.first_token, batch.num_tokens)
        for copy in copies(self._here, source, self._there, target):
            data = strided(self._source, self._here, batch.planes, copy.source)
            self._stream.copy(strided(self._target, self._there, batch.planes, copy.target), data)
            self._size_bytes += data.nbytes

    def _has_more(self) -> bool:
        """Lets go of the target where there is no more."""
        if self._behind or (self._transfer.backlog.has_work and not self._is_stopped):
            return True
        if self._close is not None and (self._is_last or self._is_stopped):
            self._close()
            self._close = None
        return False
