"""The producing end: which blocks of its pool peers read, and until when they stay."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Protocol

from kv_transfer.errors import AttachError
from kv_transfer.in_place.calls import OfferCalls, Unanswered
from kv_transfer.in_place.offer import EmbeddingOffer, consecutive
from kv_transfer.in_place.record_locks import RecordLocks
from kv_transfer.layout import MemoryOrder
from kv_transfer.leases import Key
from kv_transfer.pool import Pool
from kv_transfer.segment import open_segment
from kv_transfer.transports.base import PeerAddress

_MOST_LENT = 0.5  # of the pool: what is prefilled here needs room, too


class InUse(Protocol):
    """Blocks that stay as they are until all users have let go of them."""

    @property
    def blocks(self) -> Sequence[int]: ...

    def share(self) -> object:
        """For one more user."""

    def release(self) -> None: ...


@dataclass(slots=True, eq=False)
class _Loan:
    offer_id: int
    blocks: range
    held: InUse
    is_offered: bool = True  # a peer may take it at any time


class Lender:
    """Of one embedding pool; used on one loop, on which `sweep` is called now and then."""

    def __init__(self, pool: Pool, calls: OfferCalls) -> None:
        self._pool = pool
        self._calls = calls
        self._loans: set[_Loan] = set()
        self._next_id = count()
        self._locks: RecordLocks | None = None
        if pool.segment is not None and pool.layout.order is MemoryOrder.PLANE_BLOCK_TOKEN_HEAD:
            self._open(pool.segment.path)
        pool.blocks.call_when_short(lambda _: self.sweep())

    @property
    def lent_blocks(self) -> set[int]:
        return {block for loan in self._loans for block in loan.blocks}

    async def lend(self, peer: PeerAddress, key: Key, item_index: int, num_tokens: int, held: InUse) -> bool:
        """Whether the peer reads the embedding where it lies from here on; else it has to be sent."""
        self.sweep()
        blocks = consecutive(held.blocks)
        if self._locks is None or blocks is None or not self._may_lend(peer, blocks):
            return False
        loan = _Loan(next(self._next_id), blocks, held)
        self._locks.lock_offer(loan.offer_id)
        held.share()
        self._loans.add(loan)
        try:
            return await self._calls.offer(peer, self._offer(peer, key, item_index, num_tokens, loan))
        except Unanswered:
            return False
        finally:
            self._withdraw(loan)

    def sweep(self) -> None:
        """Ends loans that nobody reads any more: who took them let go of them, or died."""
        for loan in list(self._loans):
            if self._locks is None or not (loan.is_offered or self._locks.are_read(loan.blocks)):
                self._loans.discard(loan)
                loan.held.release()

    def check_idle(self) -> None:
        """Raises AssertionError if anything is lent."""
        if self._loans:
            raise AssertionError(f"{len(self.lent_blocks)} blocks are lent to readers")

    def close(self) -> None:
        """Lends no more, with the pool: readers keep its memory as long as they read."""
        if self._locks is not None:
            self._locks = None
            self._close_fd()

    def _may_lend(self, peer: PeerAddress, blocks: range) -> bool:
        if not self._calls.may_reach(peer):
            return False
        return len(self.lent_blocks.union(blocks)) <= _MOST_LENT * self._pool.num_blocks

    def _withdraw(self, loan: _Loan) -> None:
        """Nobody takes it any more; if nobody has, it ends here."""
        if self._locks is not None:
            self._locks.unlock_offer(loan.offer_id)
        loan.is_offered = False
        self.sweep()

    def _offer(
        self, peer: PeerAddress, key: Key, item_index: int, num_tokens: int, loan: _Loan
    ) -> EmbeddingOffer:
        segment = self._pool.segment
        assert segment is not None
        return EmbeddingOffer(
            key=key,
            item_index=item_index,
            num_tokens=num_tokens,
            layout=self._pool.layout,
            num_blocks=self._pool.num_blocks,
            blocks=loan.blocks,
            segment=str(segment.path),
            host_id=self._calls.host_id,
            sender_instance_id=self._calls.instance_id,
            sender_epoch=segment.record.epoch,
            receiver_epoch=peer.epoch,
            offer_id=loan.offer_id,
        )

    def _open(self, path: Path) -> None:
        """Through a file of its own; where that has no such locks nothing is lent."""
        try:
            fd = open_segment(path, os.O_RDWR)
        except AttachError:
            return
        self._close_fd = weakref.finalize(self, os.close, fd)
        try:
            self._locks = RecordLocks(fd, self._pool.layout.pool_bytes(1), self._pool.num_blocks)
        except OSError:
            self._close_fd()
