"""The receiving end: grants leases on this instance's blocks, takes bytes in, hands them to the owner."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.clock import Clock, MonotonicClock
from kv_transfer.checksums import block_checksums
from kv_transfer.commits import Arrived, CommitRecord
from kv_transfer.errors import ChecksumMismatch, LayoutMismatch, UnknownRequest
from kv_transfer.host import TransferHost
from kv_transfer.layout import PayloadKind
from kv_transfer.leases import Item, Key, Lease, LeaseTable
from kv_transfer.offers import NoSuchPool, OpenOffer, TooLarge, TransferUnavailable
from kv_transfer.processes import identify
from kv_transfer.room import Room
from kv_transfer.runs import BlockTable
from kv_transfer.source import TensorSource
from kv_transfer.transports.acceptor import Acceptor, TransportInfo
from kv_transfer.transports.registry import EndContext, make_acceptors, usable

if TYPE_CHECKING:
    from kv_transfer.pool import Pool

__all__ = ["TransferHost", "TransferReceiver", "UnknownRequest"]

logger = logging.getLogger(__name__)

SWEEP_INTERVAL_S = 0.5


@dataclass(frozen=True, slots=True)
class Granted:
    """A lease, and what the sender must know beside it."""

    lease: Lease
    info: TransportInfo


class TransferReceiver:
    """One per instance, used on one loop; `start` before the first call, `close` at the end.

    `transports` names those that senders may use; None means all that can be had.
    With `checksums` every commit must carry those of its blocks, which are compared with what arrived.
    Raises ValueError for a transport that is unknown or cannot be had.
    """

    def __init__(
        self,
        pools: Mapping[PayloadKind, Pool],
        host: TransferHost,
        *,
        epoch: int,
        host_id: str,
        instance_id: str = "",
        transports: Sequence[str] | None = None,
        checksums: bool = False,
        clock: Clock | None = None,
        lease_s: float = 30.0,
        grace_s: float = 60.0,
    ) -> None:
        self.pools = dict(pools)
        self.epoch = epoch
        self.wants_checksums = checksums
        self._host = host
        self._host_id = host_id
        allocators = {kind: pool.blocks for kind, pool in self.pools.items()}
        self.leases = LeaseTable(
            allocators,
            clock or MonotonicClock(),
            lease_s=lease_s,
            grace_s=grace_s,
            on_end=lambda lease: self._acceptors[lease.transport].lease_ended(lease),
        )
        self.rooms: dict[PayloadKind, Room] = {}
        self._acceptors = make_acceptors(usable(transports), EndContext(host_id, instance_id, self.commit))
        self._opening: dict[asyncio.Task[Granted], OpenOffer] = {}
        self._comparing: dict[int, asyncio.Task[Arrived]] = {}  # checksums, by lease id
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.rooms = {kind: Room(pool.blocks) for kind, pool in self.pools.items()}
        self._sweeper = asyncio.create_task(self._sweep_for_ever(), name="kv-lease-sweep")

    async def close(self) -> None:
        """Ends all that waits and every lease. Blocks in quarantine are given up with the pool."""
        for task in list(self._opening):
            task.cancel()
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
        for key in {lease.key for lease in self.leases}:
            self.release_request(key, "this instance shuts down")
        await asyncio.gather(*self._comparing.values(), return_exceptions=True)
        for acceptor in self._acceptors.values():
            await acceptor.close()

    async def open(self, offer: OpenOffer) -> Granted:
        """Waits until the request is known here and blocks are free; the caller bounds the time.

        Raises LayoutMismatch, NoSuchPool, TooLarge, TransferUnavailable, UnknownRequest.
        """
        self._check(offer)
        task = asyncio.create_task(self._admit(offer))
        self._opening[task] = offer
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():  # by release_request or close, not by this caller
                raise UnknownRequest(
                    f"request {offer.key[0]} (dispatch {offer.key[1]}) has ended here"
                ) from None
            task.cancel()
            task.add_done_callback(self._drop_unheard)
            raise
        finally:
            del self._opening[task]

    def write(self, lease_id: int, plane: int, first_token: int, data: bytes) -> Lease:
        """Bytes of consecutive tokens of one plane; without data a sign of life.

        Raises LeaseGone, ValueError naming the field.
        """
        lease = self.leases.open_lease(lease_id)
        if data:
            self._write(lease, plane, first_token, data)
        self.leases.heard_of(lease)
        return lease

    def commit(self, record: CommitRecord) -> asyncio.Future[Arrived]:
        """Hands what arrived to the host; done at once, but where checksums are compared.

        A repeated commit does nothing and is answered as the first. The result raises LeaseGone,
        UnknownRequest, ChecksumMismatch, ValueError if something is missing; then the lease is over.
        """
        comparing = self._comparing.get(record.lease_id)
        if comparing is not None:
            return comparing
        done: asyncio.Future[Arrived] = asyncio.get_running_loop().create_future()
        try:
            arrived = self.leases.arrived(record.lease_id)
            if arrived is None and self.wants_checksums:
                return self._compare(self._complete_lease(record), record)
            done.set_result(arrived or self._deliver(self._complete_lease(record), record))
        except Exception as error:
            done.set_exception(error)
        return done

    def abort(self, lease_id: int, reason: str) -> None:
        """The sender gave up and writes no more. Unknown leases are no error."""
        self.leases.confirm_stopped(lease_id)
        for lease in self.leases:
            if lease.lease_id == lease_id:
                self.leases.abort(lease, reason, is_confirmed=True)
                return

    def abort_unanswered(self, item: Item, sender_instance_id: str, reason: str) -> None:
        """The sender left its Open of this item before it was answered, or as it was."""
        for task, offer in list(self._opening.items()):
            if (offer.item, offer.sender_instance_id) == (item, sender_instance_id):
                task.cancel()
        for lease in list(self.leases):
            if (lease.item, lease.sender_instance_id) == (item, sender_instance_id):
                self.abort(lease.lease_id, reason)

    def lost_stream(self, lease_ids: set[int]) -> None:
        """The call that carried these leases' bytes broke off."""
        for lease in list(self.leases):
            if lease.lease_id in lease_ids and not lease.is_written_directly:
                self.abort(lease.lease_id, "the sender's stream broke off")

    def release_request(self, key: Key, reason: str = "the request ended here") -> None:
        """Ends all leases of a cancelled request, and whatever waits for one."""
        for task, offer in list(self._opening.items()):
            if offer.key == key:
                task.cancel()
        for lease in self.leases.of_request(key):
            self.leases.abort(lease, reason, is_confirmed=False)

    def check_integrity(self) -> None:
        """Raises AssertionError if leases and blocks disagree."""
        self.leases.check_integrity()
        for pool in self.pools.values():
            pool.blocks.check_integrity()

    def _check(self, offer: OpenOffer) -> None:
        if offer.receiver_epoch != self.epoch:
            raise LayoutMismatch(f"receiver_epoch: {offer.receiver_epoch} is not this life of the instance")
        pool = self.pools.get(offer.layout.kind)
        if pool is None:
            raise NoSuchPool(f"layout.kind: this instance takes no {offer.layout.kind.name}")
        difference = pool.layout.difference(offer.layout)
        if difference:
            raise LayoutMismatch(f"layout: {difference}")
        if offer.num_tokens < 1:
            raise ValueError("num_tokens: at least 1")
        if offer.num_tokens > pool.num_tokens:
            raise TooLarge(f"num_tokens: {offer.num_tokens}, the whole pool holds {pool.num_tokens}")
        self._choose(offer)

    async def _admit(self, offer: OpenOffer) -> Granted:
        kind = offer.layout.kind
        pool = self.pools[kind]
        item_index = None if kind is PayloadKind.KV else offer.item_index
        await self._host.expect(offer.key, kind, item_index, offer.num_tokens)
        blocks = await self.rooms[kind].take(pool.blocks_for(offer.num_tokens))
        acceptor = self._choose(offer)
        is_local = offer.sender_host_id == self._host_id
        lease = self.leases.grant(
            offer.key,
            kind,
            offer.item_index,
            offer.num_tokens,
            tuple(blocks),
            num_planes=pool.layout.num_planes,
            transport=acceptor.name,
            is_written_directly=acceptor.is_direct,
            sender_instance_id=offer.sender_instance_id,
            sender=identify(offer.sender_pid) if is_local else None,
        )
        try:
            return Granted(lease, await acceptor.grant_info(lease, pool))
        except BaseException as error:  # the sender was told nothing, so it writes nothing
            self.leases.abort(lease, f"granting failed: {error}", is_confirmed=True)
            raise

    def _choose(self, offer: OpenOffer) -> Acceptor:
        """Of the first transport that both ends can do; raises TransferUnavailable."""
        pool = self.pools[offer.layout.kind]
        reasons: list[str] = []
        for name in offer.transports:
            acceptor = self._acceptors.get(name)
            reason = "not to be had here" if acceptor is None else acceptor.refusal(offer, pool)
            if acceptor is not None and not reason:
                return acceptor
            reasons.append(f"{name}: {reason}")
        raise TransferUnavailable(f"transports: {'; '.join(reasons) or 'none offered'}")

    def _drop_unheard(self, task: asyncio.Task[Granted]) -> None:
        """The caller left while its lease was granted."""
        if not task.cancelled() and task.exception() is None:
            self.abort(task.result().lease.lease_id, "the sender left before it was told")

    def _write(self, lease: Lease, plane: int, first_token: int, data: bytes) -> None:
        pool = self.pools[lease.kind]
        if not 0 <= plane < lease.num_planes:
            raise ValueError(f"plane: {plane} is not within {lease.num_planes}")
        num_tokens, rest = divmod(len(data), pool.layout.token_bytes)
        if rest:
            raise ValueError(f"data: {len(data)} bytes are not whole tokens of {pool.layout.token_bytes}")
        end = first_token + num_tokens
        if first_token > lease.written[plane] or end > lease.num_tokens:
            present = f"plane {plane} has {lease.written[plane]} of {lease.num_tokens}"
            raise ValueError(f"first_token: {first_token} to {end} does not fit, {present}")
        pool.write_bytes(plane, lease.block_ids, first_token, data)
        lease.written[plane] = max(lease.written[plane], end)

    def _compare(self, lease: Lease, record: CommitRecord) -> asyncio.Task[Arrived]:
        task = asyncio.create_task(self._commit_compared(lease, record))
        self._comparing[lease.lease_id] = task
        task.add_done_callback(lambda task: self._compared(lease.lease_id, task))
        return task

    async def _commit_compared(self, lease: Lease, record: CommitRecord) -> Arrived:
        found = await asyncio.to_thread(self._checksums, lease, record.num_tokens)
        lease = self._complete_lease(record)  # it may have ended meanwhile
        num_wrong = sum(here != there for here, there in zip(found, record.checksums, strict=True))
        if num_wrong:
            problem = f"block_checksums: {num_wrong} of {len(found)} blocks are not as they were sent"
            self.leases.abort(lease, problem, is_confirmed=True)
            raise ChecksumMismatch(problem)
        return self._deliver(lease, record)

    def _checksums(self, lease: Lease, num_tokens: int) -> tuple[int, ...]:
        """Of what arrived; in any thread."""
        pool = self.pools[lease.kind]
        table = BlockTable(lease.block_ids, pool.layout.block_tokens)
        return block_checksums(TensorSource.of_pool(pool), table, num_tokens, pool.layout.block_tokens)

    def _compared(self, lease_id: int, task: asyncio.Task[Arrived]) -> None:
        del self._comparing[lease_id]
        if not task.cancelled():
            task.exception()  # whoever asked may have left

    def _complete_lease(self, record: CommitRecord) -> Lease:
        """The open lease, if all of it arrived; its sender writes no more in any case."""
        self.leases.confirm_stopped(record.lease_id)
        lease = self.leases.open_lease(record.lease_id)
        problem = self._commit_problem(lease, record)
        if problem:
            self.leases.abort(lease, problem, is_confirmed=True)
            raise ValueError(problem)
        return lease

    def _commit_problem(self, lease: Lease, record: CommitRecord) -> str:
        pool, num_tokens = self.pools[lease.kind], record.num_tokens
        if not 1 <= num_tokens <= lease.num_tokens:
            return f"num_tokens: {num_tokens} is not within 1 to {lease.num_tokens}"
        if not lease.is_written_directly:  # else the sender vouches for what it wrote itself
            short = [plane for plane, count in enumerate(lease.written) if count < num_tokens]
            if short:
                return f"num_tokens: {num_tokens}, but {len(short)} planes have fewer"
        least_bytes = num_tokens * lease.num_planes * pool.layout.token_bytes
        if record.written_bytes < least_bytes:
            return f"written_bytes: {record.written_bytes}, but {num_tokens} tokens have {least_bytes}"
        num_blocks = pool.blocks_for(num_tokens)
        if self.wants_checksums and len(record.checksums) != num_blocks:
            return f"block_checksums: {len(record.checksums)} came for {num_blocks} blocks"
        return ""

    def _deliver(self, lease: Lease, record: CommitRecord) -> Arrived:
        """Blocks that hold none of the tokens go back to the pool."""
        pool = self.pools[lease.kind]
        used = list(lease.block_ids[: pool.blocks_for(record.num_tokens)])
        surplus = lease.block_ids[len(used) :]
        try:
            if lease.kind is PayloadKind.KV:
                self._host.on_kv(lease.key, used, record.num_tokens, record.outputs)
            else:
                self._host.on_embedding(lease.key, lease.item_index, used, record.num_tokens)
        except BaseException as error:
            self.leases.abort(lease, f"the receiver refused it: {error}", is_confirmed=True)
            raise
        arrived = Arrived(record.num_tokens, lease.num_planes, len(used))
        self.leases.commit(lease, arrived)
        pool.blocks.release(surplus)
        return arrived

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            try:
                self.leases.sweep()
            except Exception:
                logger.exception("sweeping leases failed")
