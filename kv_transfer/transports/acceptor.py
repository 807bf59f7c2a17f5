"""The receiving side of a transport."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from kv_transfer.leases import Lease
from kv_transfer.offers import OpenOffer

if TYPE_CHECKING:
    from kv_transfer.pool import Pool

# What a sender needs to reach the receiver's memory; goes over the wire as a JSON object.
TransportInfo = Mapping[str, str | int | float]


class Acceptor(Protocol):
    """One object per receiver and transport; methods are called on the receiver's loop.

    The receiver asks the acceptors of the offered transports, in the sender's order,
    for a `refusal`, and grants a lease for the first that has none. `grant_info` is
    called once per lease, `lease_ended` when it was committed or its blocks were freed.
    """

    @property
    def name(self) -> str:
        """As it stands in OpenRequest.transports."""

    @property
    def is_direct(self) -> bool:
        """Whether senders write into the pool past this process: then early ends lead to quarantine."""

    def refusal(self, offer: OpenOffer, pool: Pool) -> str:
        """Why it cannot serve this sender for this pool, in words; empty if it can. Changes nothing."""

    async def grant_info(self, lease: Lease, pool: Pool) -> TransportInfo:
        """What the sender's `open_writer` gets to know beside the lease."""

    def lease_ended(self, lease: Lease) -> None:
        """Nothing of this lease is to be written any more."""

    async def close(self) -> None:
        """Ends connections and threads; no lease is open any more."""
