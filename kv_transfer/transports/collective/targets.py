"""The leases of an acceptor, as its receiving threads may see them."""

from __future__ import annotations

import threading
from collections import OrderedDict

from kv_transfer.leases import Lease
from kv_transfer.pool import Pool
from kv_transfer.transports.collective.frames import Frame
from kv_transfer.transports.collective.staging import Staging

_REMEMBERED_ENDS = 1024


class LeaseRefused(Exception):
    """Why a lease takes nothing (more), in words."""


class Target:
    """An open lease's blocks. `end` returns when nothing is written into them any more.

    Payloads land in staging buffers, so only the copy from there touches the blocks;
    that copy and `end` exclude each other. So blocks need no quarantine (the transport
    is not direct), and the receiver's loop waits for the copy of one slice at most.
    """

    def __init__(self, lease: Lease, pool: Pool) -> None:
        self._lease = lease
        self._pool = pool
        self._lock = threading.Lock()
        self._end_reason: str | None = None
        self._received_bytes = 0

    def write(self, frame: Frame, sender_instance_id: str, staging: Staging, slot: int) -> None:
        """Raises LeaseRefused."""
        with self._lock:
            self._check(frame, sender_instance_id)
            staging.scatter(slot, frame, self._pool, self._lease.block_ids, self._lease.heads)
            end = frame.first_token + frame.num_tokens
            for plane in frame.planes:
                self._lease.written[plane] = max(self._lease.written[plane], end)
            self._received_bytes += frame.size_bytes

    def received_bytes(self, sender_instance_id: str) -> int:
        """Raises LeaseRefused."""
        with self._lock:
            self._check_open(sender_instance_id)
            return self._received_bytes

    def end(self, reason: str) -> None:
        with self._lock:
            self._end_reason = reason

    def _check_open(self, sender_instance_id: str) -> None:
        if self._end_reason is not None:
            raise LeaseRefused(self._end_reason)
        if self._lease.sender_instance_id != sender_instance_id:
            raise LeaseRefused("it was granted to another sender")

    def _check(self, frame: Frame, sender_instance_id: str) -> None:
        self._check_open(sender_instance_id)
        lease, layout = self._lease, self._pool.layout
        planes, end = frame.planes, frame.first_token + frame.num_tokens
        if planes.start < 0 or planes.stop > lease.num_planes or not planes:
            raise LeaseRefused(f"planes {planes.start} to {planes.stop} are not within {lease.num_planes}")
        if frame.first_token < 0 or frame.num_tokens < 1 or end > lease.num_tokens:
            raise LeaseRefused(f"tokens {frame.first_token} to {end} are not within {lease.num_tokens}")
        if any(frame.first_token > lease.written[plane] for plane in planes):
            raise LeaseRefused(f"tokens before {frame.first_token} are missing")
        token_bytes = len(lease.heads) * layout.head_bytes
        if frame.size_bytes != frame.num_planes * frame.num_tokens * token_bytes:
            raise LeaseRefused(f"{frame.size_bytes} bytes are not its planes' tokens")


class Targets:
    """Added to and ended on the receiver's loop, found in any thread."""

    def __init__(self) -> None:
        self._open: dict[int, Target] = {}
        self._ends: OrderedDict[int, str] = OrderedDict()

    def add(self, lease: Lease, pool: Pool) -> None:
        self._open[lease.lease_id] = Target(lease, pool)

    def end(self, lease: Lease) -> None:
        """Remembers why for a while; a lease that is not here is no error."""
        target = self._open.pop(lease.lease_id, None)
        if target is None:
            return
        self._ends[lease.lease_id] = reason = lease.reason or f"it is {lease.state.value}"
        target.end(reason)
        while len(self._ends) > _REMEMBERED_ENDS:
            self._ends.popitem(last=False)

    def find(self, lease_id: int) -> Target:
        """Raises LeaseRefused."""
        target = self._open.get(lease_id)
        if target is None:
            raise LeaseRefused(self._ends.get(lease_id, "it is not known"))
        return target
