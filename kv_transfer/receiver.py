"""The receiving end: grants leases on this instance's blocks, takes bytes in, hands them to the owner."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.clock import Clock, MonotonicClock
from kv_transfer.arrivals import Arrivals
from kv_transfer.assembly import Assembly, ItemLocks
from kv_transfer.commits import Arrived, CommitRecord
from kv_transfer.errors import LayoutMismatch, UnknownRequest
from kv_transfer.host import TransferHost
from kv_transfer.layout import PayloadKind
from kv_transfer.leases import OPEN_STATES, Item, Key, Lease, LeaseTable
from kv_transfer.offers import NoSuchPool, OpenOffer, TooLarge, TransferUnavailable
from kv_transfer.prefixes import PrefixHost, PrefixRequest, PushedPrefix
from kv_transfer.processes import SeenProcesses
from kv_transfer.room import Room
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

    `transports` names those that senders may use; None means all that can be had. Ports that
    they need beside the transfer service's are bound to `listen_host`. With `checksums` every
    commit must carry those of its blocks, which are compared with what arrived.
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
        listen_host: str = "127.0.0.1",
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
        end = EndContext(host_id, instance_id, listen_host, self.commit)
        self._acceptors = make_acceptors(usable(transports), end)
        self._arrivals = Arrivals(self.pools, self.leases, host, checksums=checksums)
        self._joining = ItemLocks()
        self._senders = SeenProcesses()
        self._opening: dict[asyncio.Task[Granted], OpenOffer] = {}
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
        await self._arrivals.close()
        for acceptor in self._acceptors.values():
            await acceptor.close()

    def serve_prefixes(self, host: PrefixHost) -> None:
        """From here on prefixes are pushed and taken in; without this all are refused."""
        self._arrivals.prefixes = host

    async def push_prefix(self, request: PrefixRequest) -> PushedPrefix:
        """Sends a peer what it asked for; the caller bounds the time.

        Raises LayoutMismatch, NoSuchPool, TransferError.
        """
        self._check_epoch("holder_epoch", request.holder_epoch)
        fingerprint = self.pools[PayloadKind.KV].layout.model_fingerprint
        if request.model_fingerprint != fingerprint:
            raise LayoutMismatch(f"model_fingerprint: {fingerprint} here, {request.model_fingerprint} there")
        return await self._arrivals.prefixes.push_prefix(request)

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

    def write(self, lease_id: int, planes: range, first_token: int, data: bytes) -> Lease:
        """Bytes of consecutive tokens of some planes, plane by plane; without data a sign of life.

        Raises LeaseGone, ValueError naming the field.
        """
        lease = self.leases.open_lease(lease_id)
        if data:
            self._write(lease, planes, first_token, data)
        self.leases.heard_of(lease)
        return lease

    def commit(self, record: CommitRecord) -> asyncio.Future[Arrived]:
        """What the sender of a lease says when all is written: see Arrivals."""
        return self._arrivals.commit(record)

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
            if lease.lease_id in lease_ids and lease.state in OPEN_STATES and not lease.is_written_directly:
                self.abort(lease.lease_id, "the sender's stream broke off")

    def release_request(self, key: Key, reason: str = "the request ended here") -> None:
        """Ends all leases of a cancelled request, and whatever waits for one."""
        for task, offer in list(self._opening.items()):
            if offer.key == key:
                task.cancel()
        while leases := self.leases.of_request(key):  # ending one may end others
            self.leases.abort(leases[0], reason, is_confirmed=False)

    def check_integrity(self) -> None:
        """Raises AssertionError if leases and blocks disagree."""
        self.leases.check_integrity()
        for pool in self.pools.values():
            pool.blocks.check_integrity()

    def _check(self, offer: OpenOffer) -> None:
        self._check_epoch("receiver_epoch", offer.receiver_epoch)
        pool = self.pools.get(offer.layout.kind)
        if pool is None:
            raise NoSuchPool(f"layout.kind: this instance takes no {offer.layout.kind.name}")
        difference = pool.layout.difference(offer.layout)
        if difference:
            raise LayoutMismatch(f"layout: {difference}")
        if offer.is_prefix and offer.layout.kind is not PayloadKind.KV:
            raise ValueError(f"is_prefix: is of KV, not of {offer.layout.kind.name}")
        if offer.num_tokens < 1:
            raise ValueError("num_tokens: at least 1")
        if offer.num_tokens > pool.num_tokens:
            raise TooLarge(f"num_tokens: {offer.num_tokens}, the whole pool holds {pool.num_tokens}")
        self._choose(offer)

    def _check_epoch(self, field: str, epoch: int) -> None:
        if epoch != self.epoch:
            raise LayoutMismatch(f"{field}: {epoch} is not this life of the instance")

    async def _admit(self, offer: OpenOffer) -> Granted:
        kind = offer.layout.kind
        await self._expect(offer)
        lease = await self._lease(offer)
        try:
            acceptor = self._acceptors[lease.transport]
            return Granted(lease, await acceptor.grant_info(lease, self.pools[kind]))
        except BaseException as error:  # the sender was told nothing, so it writes nothing
            self.abort(lease.lease_id, f"granting failed: {error}")
            raise

    async def _expect(self, offer: OpenOffer) -> None:
        if offer.is_prefix:
            self._arrivals.prefixes.expect_prefix(offer.key, offer.num_tokens)
            return
        item_index = None if offer.layout.kind is PayloadKind.KV else offer.item_index
        await self._host.expect(offer.key, offer.layout.kind, item_index, offer.num_tokens)

    async def _lease(self, offer: OpenOffer) -> Lease:
        """On blocks of its own; a part of an item shares those of the other parts."""
        layout = self.pools[offer.layout.kind].layout
        if layout.common_heads(offer.layout) == layout.heads:
            return self._grant(offer, await self._take_room(offer))
        async with self._joining.of(offer.item):
            return self._grant(offer, self._join(offer) or await self._take_room(offer))

    async def _take_room(self, offer: OpenOffer) -> list[int]:
        kind = offer.layout.kind
        num_blocks = self.pools[kind].blocks_for(offer.num_tokens)
        return await self.rooms[kind].take(num_blocks, gives_way=offer.is_prefix)

    def _join(self, offer: OpenOffer) -> list[int] | None:
        """A reference to each of the blocks of the other parts of the item; None without any."""
        pool = self.pools[offer.layout.kind]
        assembly = Assembly(self.leases.parts(offer.item), pool.layout.heads)
        if not assembly.has_place_for(pool.layout.common_heads(offer.layout)):
            return None
        first = assembly.parts[0]
        if first.is_prefix != offer.is_prefix:
            raise ValueError(f"is_prefix: {offer.is_prefix}, other parts of the item have {first.is_prefix}")
        if first.num_tokens != offer.num_tokens:
            raise ValueError(
                f"num_tokens: {offer.num_tokens}, other parts of the item have {first.num_tokens}"
            )
        pool.blocks.share(first.block_ids)
        return list(first.block_ids)

    def _grant(self, offer: OpenOffer, blocks: list[int]) -> Lease:
        layout = self.pools[offer.layout.kind].layout
        try:
            acceptor = self._choose(offer)
        except TransferUnavailable:
            self.pools[offer.layout.kind].blocks.release(blocks)
            raise
        is_local = offer.sender_host_id == self._host_id
        return self.leases.grant(
            offer.key,
            offer.layout.kind,
            offer.item_index,
            offer.num_tokens,
            tuple(blocks),
            num_planes=layout.num_planes,
            transport=acceptor.name,
            is_written_directly=acceptor.is_direct,
            sender_instance_id=offer.sender_instance_id,
            sender=self._senders.identify(offer.sender_instance_id, offer.sender_pid) if is_local else None,
            heads=layout.common_heads(offer.layout),
            is_prefix=offer.is_prefix,
        )

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

    def _write(self, lease: Lease, planes: range, first_token: int, data: bytes) -> None:
        pool = self.pools[lease.kind]
        if not 0 <= planes.start < planes.stop <= lease.num_planes:
            raise ValueError(
                f"plane: {planes.start}, num_planes: {len(planes)} are not within {lease.num_planes}"
            )
        token_bytes = len(planes) * len(lease.heads) * pool.layout.head_bytes
        num_tokens, rest = divmod(len(data), token_bytes)
        if rest:
            raise ValueError(f"data: {len(data)} bytes are not whole tokens of {token_bytes}")
        end = first_token + num_tokens
        written = lease.written[planes.start : planes.stop]
        if first_token > min(written) or end > lease.num_tokens:
            shortest = planes[written.index(min(written))]
            present = f"plane {shortest} has {min(written)} of {lease.num_tokens}"
            raise ValueError(f"first_token: {first_token} to {end} does not fit, {present}")
        pool.write_bytes(planes, lease.block_ids, first_token, data, lease.heads)
        lease.written[planes.start : planes.stop] = [max(mark, end) for mark in written]

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            try:
                self.leases.sweep()
            except Exception:
                logger.exception("sweeping leases failed")
