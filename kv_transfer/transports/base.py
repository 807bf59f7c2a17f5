"""The interface of all transports, and the facts they get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from core.clock import Clock
from kv_transfer.commits import Arrived, Promise
from kv_transfer.errors import AttachError
from kv_transfer.layout import PoolLayout
from kv_transfer.source import PlaneSource
from kv_transfer.transports.acceptor import TransportInfo
from kv_transfer.transports.backlog import Backlog


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """A receiver as the coordinator names it."""

    instance_id: str
    endpoint: str  # HOST:PORT of its transfer service
    host_id: str
    epoch: int  # of its present life


class LeaseDeadline:
    """Until when the sender may believe in its lease; renewed by heartbeats.

    A sender that was stopped for longer must not write when it wakes up.
    """

    def __init__(self, clock: Clock, asked_at_s: float, lease_s: float) -> None:
        self.lease_s = lease_s
        self._clock = clock
        self._until_s = asked_at_s + lease_s

    @property
    def is_over(self) -> bool:
        return self._clock.now_s() >= self._until_s

    @property
    def is_renewal_due(self) -> bool:
        """Whether a third of the lease has passed since it was last confirmed."""
        return self._clock.now_s() >= self._until_s - self.lease_s * 2 / 3

    def renew(self, asked_at_s: float) -> None:
        """The receiver confirmed what was asked at that time."""
        self._until_s = max(self._until_s, asked_at_s + self.lease_s)


@dataclass(frozen=True, slots=True)
class Grant:
    """What the receiver gave: a lease, and where its blocks are."""

    lease_id: int
    transport: str
    block_ids: tuple[int, ...]
    info: TransportInfo  # what the transport's acceptor said of the receiver's memory
    layout: PoolLayout  # of the receiver's pool
    deadline: LeaseDeadline
    wants_checksums: bool = False

    def text(self, name: str) -> str:
        """A string of `info`; raises AttachError if the receiver left it out."""
        value = self.info.get(name)
        if not isinstance(value, str):
            raise AttachError(f"the receiver granted {self.transport} without {name}")
        return value

    def number(self, name: str) -> int:
        """As `text`, for a whole number that is not negative."""
        value = self.info.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise AttachError(f"the receiver granted {self.transport} without {name}")
        return value


class Transfer:
    """All that a writer needs to know of one transfer; both ends of the sender's process share it."""

    def __init__(self, peer: PeerAddress, grant: Grant, source: PlaneSource, backlog: Backlog) -> None:
        self.peer = peer
        self.grant = grant
        self.source = source
        self.backlog = backlog
        self.error: Exception | None = None  # why it cannot be committed any more

    @property
    def heads(self) -> range:
        """Those that both ends hold: what is moved."""
        return self.source.layout.common_heads(self.grant.layout)

    def fail(self, error: Exception) -> None:
        """Any thread; the first error counts."""
        if self.error is None:
            self.error = error


class Writer(Protocol):
    """Carries one transfer's bytes. Made per lease; ends with `drain` or `stop`."""

    def wake(self) -> None:
        """The backlog has work. Called in any thread, after each push; returns at once."""

    async def drain(self) -> int:
        """Returns the bytes written once all that was pushed is in the receiver's memory.

        Called once, after the last push. Raises TransferError.
        """

    async def stop(self) -> None:
        """Gives up. When it returns, this writer touches the receiver's memory no more.

        Raises TransferError where that cannot be told: then the receiver must not be
        asked to use the memory again, and lets the lease run into its quarantine.
        """


@runtime_checkable
class CommittingWriter(Protocol):
    """A writer with a way of its own to say that all is written; the others' commits go over gRPC."""

    async def commit(self, promise: Promise) -> Arrived | None:
        """Writes the rest and commits. Called once, after the last push, before `drain`.

        None: the receiver may not have heard of it, so that the commit must be repeated over gRPC.
        Raises TransferError: writing failed, or the receiver refused.
        """


class Transport(Protocol):
    """One way to move bytes. One object per sender; methods are called on its loop.

    The sender offers the names of all transports that `can_reach` the peer,
    best first; the receiver picks the first that it can serve and grants a
    lease; then the sender calls `open_writer`, once per lease.
    """

    @property
    def name(self) -> str:
        """As it stands in OpenRequest.transports."""

    def can_reach(self, peer: PeerAddress) -> bool:
        """Whether this end could write to that peer; changes nothing."""

    async def open_writer(self, transfer: Transfer) -> Writer:
        """Raises AttachError if the peer's memory cannot be reached after all: the next transport is tried.

        The writer calls `transfer.fail` when writing failed.
        """

    def forget(self, instance_id: str) -> None:
        """The peer is gone, or lives on under a new epoch: drops what is cached of it."""

    async def close(self) -> None: ...
