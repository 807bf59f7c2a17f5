"""Aborts that a peer did not answer in time, to be said again."""

from __future__ import annotations

from dataclasses import dataclass

from core.clock import Clock
from elasticmm.v1 import transfer_pb2
from kv_transfer.transports.base import PeerAddress

WORTH_SAYING_S = 120.0  # by then the peer's quarantine is over by itself
MOST_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Farewell:
    """What a peer is to be told: that this end writes no more there."""

    peer: PeerAddress
    request: transfer_pb2.AbortRequest
    until_s: float  # not worth saying any more after that


class Farewells:
    """A peer that stood still and goes on keeps blocks in quarantine until it hears that nobody writes there.

    Used on the sender's loop: `keep` what was not answered, `take` all of it for the next try.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: list[Farewell] = []

    def __len__(self) -> int:
        return len(self._kept)

    def new(self, peer: PeerAddress, request: transfer_pb2.AbortRequest) -> Farewell:
        return Farewell(peer, request, self._clock.now_s() + WORTH_SAYING_S)

    def keep(self, farewell: Farewell) -> None:
        """Nothing if it was tried for too long, or the oldest of too many."""
        if self._clock.now_s() < farewell.until_s:
            self._kept = [*self._kept[1 - MOST_KEPT :], farewell]

    def take(self) -> list[Farewell]:
        kept, self._kept = self._kept, []
        return kept

    def forget(self, instance_id: str) -> None:
        """The peer is gone, and what it held with it."""
        self._kept = [farewell for farewell in self._kept if farewell.peer.instance_id != instance_id]
