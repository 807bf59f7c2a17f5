"""The sending end: asks peers for room and carries pool contents and embeddings there."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from core.clock import Clock, MonotonicClock
from elasticmm.v1 import transfer_pb2
from kv_transfer.channels import Channels
from kv_transfer.commits import Arrived, CommitRecord
from kv_transfer.errors import AttachError, TransferError
from kv_transfer.farewells import Farewell, Farewells
from kv_transfer.grants import grant_from
from kv_transfer.in_place.calls import OfferCalls
from kv_transfer.layout import PayloadKind, PoolLayout
from kv_transfer.leases import Key
from kv_transfer.outgoing import Outgoing
from kv_transfer.pace import PacedLink
from kv_transfer.pool import Pool, embedding_layout
from kv_transfer.prefixes import PrefixRequest, PushedPrefix
from kv_transfer.source import LateSource, PlaneSource, TensorSource
from kv_transfer.stats import PairCounters, StatsTable
from kv_transfer.tls import TlsFiles
from kv_transfer.transports.backlog import Backlog
from kv_transfer.transports.base import Grant, LeaseDeadline, PeerAddress, Transfer
from kv_transfer.transports.registry import TRANSPORTS, EndContext, make_transports, usable
from kv_transfer.turns import Turns
from kv_transfer.wire import arrived_from, commit_to, layout_to, pull_to, pushed_from

if TYPE_CHECKING:
    import torch

__all__ = ["TRANSPORTS", "Outgoing", "PeerAddress", "Sender"]

ABORT_TIMEOUT_S = 2.0
HEARTBEAT_INTERVAL_S = 1.0  # at most
BEATS_PER_LEASE = 6
MAX_IN_FLIGHT = 32
UNANSWERED = frozenset({"CANCELLED", "DEADLINE_EXCEEDED", "UNAVAILABLE", "UNKNOWN", "INTERNAL"})


class Sender:
    """One per stage server; everything but Outgoing.push is for its loop.

    `transports` names what may be used, best first; None means all that can be had. Opening takes at
    most `open_timeout_s` (the peer may wait for the request and for room), commits
    and heartbeats `call_timeout_s`. At most `max_in_flight` transfers are open at a time per peer and
    kind of payload (KV may wait for embeddings, never the other way round); others wait their turn.
    With `link` nothing is handed over before it would have passed a link of that pace.
    With `tls` all calls go through it, and no transport is used that passes it by.
    Raises ValueError for a transport that is unknown or cannot be had.
    """

    def __init__(
        self,
        *,
        model_fingerprint: str,
        instance_id: str,
        host_id: str,
        token: str,
        transports: Sequence[str] | None = None,
        max_in_flight: int = MAX_IN_FLIGHT,
        open_timeout_s: float = 120.0,
        call_timeout_s: float = 10.0,
        clock: Clock | None = None,
        tls: TlsFiles | None = None,
        link: PacedLink | None = None,
    ) -> None:
        names = usable(transports, is_encrypted=tls is not None)
        self.stats = StatsTable()
        self._model_fingerprint = model_fingerprint
        self._instance_id = instance_id
        self._host_id = host_id
        self._open_timeout_s = open_timeout_s
        self._call_timeout_s = call_timeout_s
        self._clock = clock or MonotonicClock()
        self._link = link
        self._channels = Channels(token, tls)
        self._transports = make_transports(names, EndContext(host_id, instance_id), self._channels)
        may_offer = "shm" in names and link is None
        self.in_place = OfferCalls(self._channels, self.stats, instance_id, host_id, may_offer)
        self._unreachable: set[tuple[PeerAddress, str]] = set()  # found out when attaching
        self._turns = Turns(max_in_flight)
        self._outgoing: set[Outgoing] = set()
        self._farewells = Farewells(self._clock)
        self._background: set[asyncio.Task[Any]] = set()
        self._heartbeat: asyncio.Task[None] | None = None

    async def open(  # noqa: PLR0917 - where to, what, from where
        self,
        peer: PeerAddress,
        key: Key,
        kind: PayloadKind,
        item_index: int,
        num_tokens: int,
        source: Pool,
        *,
        is_prefix: bool = False,
        skip_tokens: int = 0,
    ) -> Outgoing:
        """Waits until the peer knows the request and has room for `num_tokens` tokens.

        With `is_prefix` they are for the peer's cache. The first is the one after `skip_tokens` of the
        source blocks. Raises TransferError: refused, unreachable or not granted in time.
        """
        if source.layout.kind != kind:
            raise ValueError(f"kind: {kind!r}, the source holds {source.layout.kind.name}")
        request = self._open_request(peer, key, item_index, num_tokens, source.layout)
        request.is_prefix = is_prefix
        return await self._open(peer, request, TensorSource.of_pool(source), skip_tokens)

    async def pull_prefix(self, peer: PeerAddress, wanted: PrefixRequest, timeout_s: float) -> PushedPrefix:
        """Asks the peer to push here what it has of a prefix; returns once it did. Raises TransferError."""
        self._channels.forget(peer.instance_id, but=peer)  # an earlier life
        stub, metadata = self._channels.stub(peer), self._channels.metadata
        call = stub.PullPrefix(pull_to(wanted), metadata=metadata, timeout=timeout_s)
        return pushed_from(await self._channels.answer(peer, call, "pull refused"))

    async def send_embedding(
        self,
        peer: PeerAddress,
        key: Key,
        item_index: int,
        embedding: torch.Tensor,
        *,
        latest: Callable[[], torch.Tensor] | None = None,
    ) -> str:
        """Sends one media item's embedding [num_tokens, width]; returns the transport's name.

        `latest` is called once the peer has room, and gives the tensor to read, the same in content; None:
        it stays where it is. Raises TransferError.
        """
        num_tokens, width = embedding.shape
        layout = embedding_layout(self._model_fingerprint, embedding.dtype, width=width)
        source = LateSource(layout, num_tokens, latest or (lambda: embedding))
        request = self._open_request(peer, key, item_index, num_tokens, layout)
        outgoing = await self._open(peer, request, source)
        try:
            outgoing.push(0, num_tokens, range(1), range(1))
            await outgoing.commit(num_tokens)
        finally:
            await outgoing.abort("sending the embedding was given up")
        return outgoing.transport

    def forget(self, instance_id: str) -> None:
        """The peer is gone: drops connections and mappings; what is in flight to it fails."""
        self._farewells.forget(instance_id)
        self._unreachable = {pair for pair in self._unreachable if pair[0].instance_id != instance_id}
        self.in_place.forget(instance_id)
        self._channels.forget(instance_id)
        for transport in self._transports.values():
            transport.forget(instance_id)

    def counters(self) -> tuple[PairCounters, ...]:
        """What was sent so far, per peer and transport; counts from this object's making."""
        return self.stats.snapshot()

    async def close(self) -> None:
        """Aborts what is in flight and closes channels, mappings and threads."""
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._heartbeat
        await asyncio.gather(*(outgoing.abort("the sender shuts down") for outgoing in list(self._outgoing)))
        await asyncio.gather(*self._background, return_exceptions=True)
        for transport in self._transports.values():
            await transport.close()
        await self._channels.close()

    async def commit_lease(self, peer: PeerAddress, record: CommitRecord) -> Arrived:
        call = self._channels.stub(peer).Commit(commit_to(record), **self._options())
        return arrived_from(await self._channels.answer(peer, call, "commit refused"))

    async def abort_lease(self, peer: PeerAddress, lease_id: int, reason: str) -> None:
        request = transfer_pb2.AbortRequest(lease_id=lease_id, reason=reason)
        await self._abort(self._farewells.new(peer, request))

    async def _abort(self, farewell: Farewell) -> None:
        """A peer that is gone needs no telling; one that stands still is told again."""
        peer = farewell.peer
        call = self._channels.stub(peer).Abort(farewell.request, **self._options(ABORT_TIMEOUT_S))
        try:
            await self._channels.answer(peer, call, "abort refused")
        except TransferError as error:
            if error.cause == "DEADLINE_EXCEEDED":
                self._farewells.keep(farewell)
                self._start_heartbeat()

    def ended(self, outgoing: Outgoing) -> None:
        self._outgoing.discard(outgoing)
        self._turns.give_back(_turn(outgoing.peer, outgoing.transfer.source))

    def check_idle(self) -> None:
        """Raises AssertionError if a transfer is open or waited for."""
        self._turns.check_idle()
        if self._outgoing or self.stats.in_flight:
            raise AssertionError(f"{len(self._outgoing)} transfers are open, {self.stats.in_flight} counted")

    async def _open(
        self,
        peer: PeerAddress,
        request: transfer_pb2.OpenRequest,
        source: PlaneSource,
        skip_tokens: int = 0,
    ) -> Outgoing:
        until_s = asyncio.get_running_loop().time() + self._open_timeout_s
        try:
            await self._take_turn(peer, source)
            try:
                return await self._open_in_turn(peer, request, source, skip_tokens, until_s)
            except BaseException:
                self._turns.give_back(_turn(peer, source))
                raise
        except TransferError as error:
            if error.cause != "ATTACH":  # which was counted under its transport
                self.stats.of(peer.instance_id, "").failures[error.cause] += 1
            raise

    async def _take_turn(self, peer: PeerAddress, source: PlaneSource) -> None:
        """Raises TransferError if none comes in time."""
        if self._turns.try_take(_turn(peer, source)):
            return
        stats = self.stats.of(peer.instance_id, "")
        stats.waiting += 1
        try:
            async with asyncio.timeout(self._open_timeout_s):
                await self._turns.take(_turn(peer, source))
        except TimeoutError:
            raise TransferError(
                "BUSY", f"{self._turns.limit} transfers to {peer.instance_id} were open all the time"
            ) from None
        finally:
            stats.waiting -= 1

    async def _open_in_turn(
        self,
        peer: PeerAddress,
        request: transfer_pb2.OpenRequest,
        source: PlaneSource,
        skip_tokens: int,
        until_s: float,
    ) -> Outgoing:
        while True:
            names = [
                name
                for name, transport in self._transports.items()
                if transport.can_reach(peer) and (peer, name) not in self._unreachable
            ]
            request.transports[:] = names
            grant = await self._ask(peer, request, until_s)
            try:
                return await self._start(peer, grant, source, request.num_tokens, skip_tokens)
            except AttachError as error:
                self._unreachable.add((peer, grant.transport))
                self.stats.of(peer.instance_id, grant.transport).failures["ATTACH"] += 1
                await self.abort_lease(peer, grant.lease_id, str(error))
                if len(names) == 1:
                    raise TransferError("ATTACH", str(error)) from error
            except asyncio.CancelledError:
                self._spawn(self.abort_lease(peer, grant.lease_id, "the sender left while it attached"))
                raise

    def _open_request(
        self, peer: PeerAddress, key: Key, item_index: int, num_tokens: int, layout: PoolLayout
    ) -> transfer_pb2.OpenRequest:
        """Without transports."""
        return transfer_pb2.OpenRequest(
            request_id=key[0],
            attempt=key[1],
            item_index=item_index,
            num_tokens=num_tokens,
            layout=layout_to(layout),
            sender_instance_id=self._instance_id,
            sender_host_id=self._host_id,
            receiver_epoch=peer.epoch,
            sender_pid=os.getpid(),
        )

    async def _ask(self, peer: PeerAddress, request: transfer_pb2.OpenRequest, until_s: float) -> Grant:
        """A caller that leaves gets no lease, even if one is granted at that moment."""
        asked_at_s = self._clock.now_s()
        self._channels.forget(peer.instance_id, but=peer)  # an earlier life
        timeout_s = max(0.0, until_s - asyncio.get_running_loop().time())
        call = self._channels.stub(peer).Open(request, metadata=self._channels.metadata, timeout=timeout_s)
        try:
            response = await self._channels.answer(peer, call, "open refused")
        except TransferError as error:
            if error.cause in UNANSWERED:
                await self._leave(peer, request)  # before the caller asks again
            raise
        except asyncio.CancelledError:
            self._spawn(self._leave(peer, request))
            raise
        deadline = LeaseDeadline(self._clock, asked_at_s, response.expires_in_ms / 1000)
        try:
            return grant_from(response, deadline)
        except TransferError as error:
            await self.abort_lease(peer, response.lease_id, str(error))
            raise

    async def _leave(self, peer: PeerAddress, asked: transfer_pb2.OpenRequest) -> None:
        """Gives up what may have been granted at the moment when this end stopped waiting."""
        request = transfer_pb2.AbortRequest(
            request_id=asked.request_id,
            attempt=asked.attempt,
            kind=asked.layout.kind,
            item_index=asked.item_index,
            sender_instance_id=self._instance_id,
            reason="the sender left while it asked",
        )
        await self._abort(self._farewells.new(peer, request))

    async def _start(
        self, peer: PeerAddress, grant: Grant, source: PlaneSource, num_tokens: int, skip_tokens: int
    ) -> Outgoing:
        """Raises AttachError."""
        transport = self._transports[grant.transport]
        moved_bytes = len(source.layout.common_heads(grant.layout)) * source.layout.head_bytes
        backlog = Backlog(source.layout, num_tokens, moved_bytes, skip_tokens=skip_tokens)
        transfer = Transfer(peer, grant, source, backlog)
        writer = await transport.open_writer(transfer)
        stats = self.stats.of(peer.instance_id, grant.transport)
        outgoing = Outgoing(transfer, writer, self, stats, self._clock, link=self._link)
        self._outgoing.add(outgoing)
        self._start_heartbeat()
        return outgoing

    def _start_heartbeat(self) -> None:
        if self._heartbeat is None:
            self._heartbeat = asyncio.create_task(self._beat(), name="kv-lease-heartbeat")

    async def _beat(self) -> None:
        """Renews leases held for long; a short transfer never gets here."""
        async with asyncio.TaskGroup() as tasks:  # a peer that does not answer holds up no other's
            renewing: set[Outgoing] = set()
            while True:
                await asyncio.sleep(self._until_beat_s())
                self._renew_due(tasks, renewing)
                for farewell in self._farewells.take():
                    tasks.create_task(self._abort(farewell))

    def _until_beat_s(self) -> float:
        leases_s = (outgoing.transfer.grant.deadline.lease_s for outgoing in self._outgoing)
        return min(HEARTBEAT_INTERVAL_S, min(leases_s, default=math.inf) / BEATS_PER_LEASE)

    def _renew_due(self, tasks: asyncio.TaskGroup, renewing: set[Outgoing]) -> None:
        """Apart from the loop that sleeps, which must hold no transfer, for that holds a peer's memory."""
        for outgoing in self._outgoing - renewing:
            if outgoing.transfer.grant.deadline.is_renewal_due:
                renewing.add(outgoing)
                task = tasks.create_task(self._renew(outgoing))
                task.add_done_callback(lambda _, done=outgoing: renewing.discard(done))  # type: ignore[misc]

    async def _renew(self, outgoing: Outgoing) -> None:
        asked_at_s = self._clock.now_s()
        deadline = outgoing.transfer.grant.deadline
        beat = transfer_pb2.WriteRequest(lease_id=outgoing.lease_id)
        call = self._channels.stub(outgoing.peer).Write(iter((beat,)), **self._options())
        try:
            await self._channels.answer(outgoing.peer, call, "heartbeat refused")
        except TransferError as error:
            has_ended = error.cause == "FAILED_PRECONDITION"
            if has_ended or deadline.is_over:
                await outgoing.lose(error)
        else:
            deadline.renew(asked_at_s)

    def _options(self, at_most_s: float = math.inf) -> dict[str, Any]:
        return {"metadata": self._channels.metadata, "timeout": min(self._call_timeout_s, at_most_s)}

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _turn(peer: PeerAddress, source: PlaneSource) -> tuple[str, PayloadKind]:
    """What a transfer takes turns with."""
    return peer.instance_id, source.layout.kind
