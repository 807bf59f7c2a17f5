"""Commits as the receiver takes them: checks what arrived and hands whole items to the host."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kv_transfer.assembly import Assembly
from kv_transfer.checksums import block_checksums
from kv_transfer.commits import Arrived, CommitRecord
from kv_transfer.errors import ChecksumMismatch
from kv_transfer.host import TransferHost
from kv_transfer.layout import PayloadKind
from kv_transfer.leases import Arrival, Lease, LeaseTable
from kv_transfer.prefixes import NoPrefixes, PrefixHost
from kv_transfer.runs import BlockTable
from kv_transfer.source import TensorSource

if TYPE_CHECKING:
    from kv_transfer.pool import Pool


class Arrivals:
    """Of one receiver, on its loop; checksums are computed in threads."""

    def __init__(
        self, pools: Mapping[PayloadKind, Pool], leases: LeaseTable, host: TransferHost, *, checksums: bool
    ) -> None:
        self._pools = pools
        self._leases = leases
        self._host = host
        self.prefixes: PrefixHost = NoPrefixes()
        self._wants_checksums = checksums
        self._comparing: dict[int, asyncio.Task[Arrived]] = {}  # checksums, by lease id

    @property
    def num_comparing(self) -> int:
        return len(self._comparing)

    def commit(self, record: CommitRecord) -> asyncio.Future[Arrived]:
        """Hands what arrived to the host, once all parts of the item did; done at once, but where
        checksums are compared. A part that is not the last is answered as it arrives.

        A repeated commit does nothing and is answered as the first. The result raises LeaseGone,
        UnknownRequest, ChecksumMismatch, ValueError if something is missing or parts disagree;
        then the lease is over, and those of all parts.
        """
        comparing = self._comparing.get(record.lease_id)
        if comparing is not None:
            return comparing
        done: asyncio.Future[Arrived] = asyncio.get_running_loop().create_future()
        try:
            arrived = self._leases.arrived(record.lease_id)
            if arrived is None and self._wants_checksums:
                return self._compare(self._complete_lease(record), record)
            done.set_result(arrived or self._take(self._complete_lease(record), record))
        except Exception as error:
            done.set_exception(error)
        return done

    async def close(self) -> None:
        """After all leases ended."""
        await asyncio.gather(*self._comparing.values(), return_exceptions=True)

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
            self._leases.abort(lease, problem, is_confirmed=True)
            raise ChecksumMismatch(problem)
        return self._take(lease, record)

    def _checksums(self, lease: Lease, num_tokens: int) -> tuple[int, ...]:
        """Of what arrived; in any thread."""
        pool = self._pools[lease.kind]
        block_tokens = pool.layout.block_tokens
        table = BlockTable(lease.block_ids, block_tokens)
        return block_checksums(TensorSource.of_pool(pool), lease.heads, table, num_tokens, block_tokens)

    def _compared(self, lease_id: int, task: asyncio.Task[Arrived]) -> None:
        del self._comparing[lease_id]
        if not task.cancelled():
            task.exception()  # whoever asked may have left

    def _complete_lease(self, record: CommitRecord) -> Lease:
        """The open lease, if all of it arrived; its sender writes no more in any case."""
        self._leases.confirm_stopped(record.lease_id)
        lease = self._leases.open_lease(record.lease_id)
        problem = self._problem(lease, record)
        if not problem:
            problem = self._assembly(lease).disagreement(self._arrival(lease, record))
        if problem:
            self._leases.abort(lease, problem, is_confirmed=True)
            raise ValueError(problem)
        return lease

    def _problem(self, lease: Lease, record: CommitRecord) -> str:
        pool, num_tokens = self._pools[lease.kind], record.num_tokens
        if not 1 <= num_tokens <= lease.num_tokens:
            return f"num_tokens: {num_tokens} is not within 1 to {lease.num_tokens}"
        if not lease.is_written_directly:  # else the sender vouches for what it wrote itself
            short = [plane for plane, count in enumerate(lease.written) if count < num_tokens]
            if short:
                return f"num_tokens: {num_tokens}, but {len(short)} planes have fewer"
        least_bytes = num_tokens * lease.num_planes * len(lease.heads) * pool.layout.head_bytes
        if record.written_bytes < least_bytes:
            return f"written_bytes: {record.written_bytes}, but {num_tokens} tokens have {least_bytes}"
        num_blocks = pool.blocks_for(num_tokens)
        if self._wants_checksums and len(record.checksums) != num_blocks:
            return f"block_checksums: {len(record.checksums)} came for {num_blocks} blocks"
        return ""

    def _take(self, lease: Lease, record: CommitRecord) -> Arrived:
        """The last part brings all to the host, others wait."""
        arrival, assembly = self._arrival(lease, record), self._assembly(lease)
        if not assembly.is_completed_by(lease):
            self._leases.arrive(lease, arrival)
            return arrival.found
        try:
            self._deliver(assembly.parts, arrival)
        except BaseException as error:
            self._leases.abort(lease, f"the receiver refused it: {error}", is_confirmed=True)
            raise
        return arrival.found

    def _deliver(self, parts: Sequence[Lease], arrival: Arrival) -> None:
        """All parts of an item. Blocks that hold none of the tokens go back to the pool."""
        lease, *others = parts
        blocks, found = self._pools[lease.kind].blocks, arrival.found
        used, surplus = list(lease.block_ids[: found.num_blocks]), lease.block_ids[found.num_blocks :]
        if lease.is_prefix:
            self.prefixes.on_prefix(lease.key, used, found.num_tokens)
        elif lease.kind is PayloadKind.KV:
            self._host.on_kv(lease.key, used, found.num_tokens, arrival.outputs)
        else:
            self._host.on_embedding(lease.key, lease.item_index, used, found.num_tokens)
        for part in parts:
            self._leases.commit(part, found)
        for part in others:
            blocks.release(part.block_ids)
        if surplus:
            blocks.release(surplus)

    def _assembly(self, lease: Lease) -> Assembly:
        heads = self._pools[lease.kind].layout.heads
        is_whole = lease.heads == heads  # then it is the only part
        return Assembly((lease,) if is_whole else self._leases.parts(lease.item), heads)

    def _arrival(self, lease: Lease, record: CommitRecord) -> Arrival:
        num_blocks = self._pools[lease.kind].blocks_for(record.num_tokens)
        return Arrival(Arrived(record.num_tokens, lease.num_planes, num_blocks), record.outputs)
