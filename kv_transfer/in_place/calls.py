"""The call with which a producer offers an embedding."""

from __future__ import annotations

from dataclasses import dataclass, field

from elasticmm.v1.transfer_pb2 import OfferEmbeddingResponse
from kv_transfer.channels import Channels
from kv_transfer.errors import TransferError
from kv_transfer.in_place.offer import EmbeddingOffer, offer_to
from kv_transfer.stats import StatsTable
from kv_transfer.transports.base import PeerAddress

OFFER_TIMEOUT_S = 10.0  # a peer that does not answer is sent the embedding
_UNANSWERED = frozenset({"CANCELLED", "DEADLINE_EXCEEDED", "UNAVAILABLE", "UNKNOWN", "INTERNAL"})
IN_PLACE = "in_place"  # counted as a transport


class Unanswered(RuntimeError):
    """The peer may have taken it."""


@dataclass(slots=True)
class OfferCalls:
    """A sender's, on its loop. `is_possible`: transfers may go through shared memory, unpaced."""

    channels: Channels
    stats: StatsTable
    instance_id: str
    host_id: str
    is_possible: bool
    _refusing: set[PeerAddress] = field(default_factory=set)

    def may_reach(self, peer: PeerAddress) -> bool:
        return self.is_possible and peer.host_id == self.host_id and peer not in self._refusing

    async def offer(self, peer: PeerAddress, offer: EmbeddingOffer) -> bool:
        """Whether the peer has a lease on it now; one that refuses is asked no more. Raises Unanswered."""
        stub, metadata = self.channels.stub(peer), self.channels.metadata
        call = stub.OfferEmbedding(offer_to(offer), metadata=metadata, timeout=OFFER_TIMEOUT_S)
        stats = self.stats.of(peer.instance_id, IN_PLACE)
        try:
            answer: OfferEmbeddingResponse = await self.channels.answer(peer, call, "offer refused")
        except TransferError as error:
            stats.failures[error.cause] += 1
            if error.cause in _UNANSWERED:
                raise Unanswered(str(error)) from error
            return False
        if answer.is_taken:
            stats.committed += 1
        else:
            self._refusing.add(peer)
        return answer.is_taken

    def forget(self, instance_id: str) -> None:
        self._refusing = {peer for peer in self._refusing if peer.instance_id != instance_id}
