"""NIXL over UCX: one-sided writes into the receiver's leased blocks, between any two hosts."""

from __future__ import annotations

import asyncio
import base64
import secrets
import threading

from core.clock import Clock, MonotonicClock
from kv_transfer.errors import TransferError
from kv_transfer.layout import PayloadKind
from kv_transfer.leases import Lease
from kv_transfer.offers import OpenOffer
from kv_transfer.pool import Pool
from kv_transfer.transports.acceptor import TransportInfo
from kv_transfer.transports.base import PeerAddress, Transfer, Writer
from kv_transfer.transports.nixl_agent import NixlAgent
from kv_transfer.transports.nixl_peers import NixlPeers
from kv_transfer.transports.nixl_writer import NixlWriter
from kv_transfer.transports.poller import Poller, Turn


class NixlTransport:
    """Any peer. Its agent, in the poller's thread, starts with the first transfer.

    So a peer whose agent cannot be loaded is found out while the transfer is under
    way: that one fails with cause ATTACH or NIXL, and the next goes another way.
    """

    name = "nixl"

    def __init__(self, instance_id: str, clock: Clock | None = None) -> None:
        self._clock = clock or MonotonicClock()
        self._poller = Poller("kv-nixl")
        self._peers = NixlPeers(_agent_name(instance_id, "sender"))

    def can_reach(self, peer: PeerAddress) -> bool:
        return bool(peer.endpoint) and not self._peers.is_broken(peer)

    async def open_writer(self, transfer: Transfer) -> Writer:
        self._poller.start()
        return NixlWriter(self._poller, self._peers, transfer, self._clock)

    def forget(self, instance_id: str) -> None:
        self._poller.submit(_Retire(self._peers, instance_id))

    async def close(self) -> None:
        await asyncio.to_thread(self._shut_down)

    def _shut_down(self) -> None:
        self._poller.close()
        self._peers.shut_down()


class _Retire:
    """Forgetting a peer, in the poller's thread."""

    def __init__(self, peers: NixlPeers, instance_id: str) -> None:
        self._peers = peers
        self._instance_id = instance_id

    def run_turn(self) -> Turn:
        self._peers.retire(self._instance_id)
        return Turn.DONE


class NixlAcceptor:
    """Registers each pool with the first grant, and tells senders how to reach it."""

    name = "nixl"
    is_direct = True

    def __init__(self, instance_id: str) -> None:
        self._instance_id = instance_id
        self._lock = threading.Lock()
        self._agent: NixlAgent | None = None
        self._metadata = ""  # of all that is registered
        self._infos: dict[PayloadKind, dict[str, str | int | float]] = {}
        self._problem = ""

    def refusal(self, offer: OpenOffer, pool: Pool) -> str:
        del offer
        if pool.device.type not in ("cpu", "cuda"):
            return f"the pool lies on {pool.device.type}"
        return self._problem

    async def grant_info(self, lease: Lease, pool: Pool) -> TransportInfo:
        """Raises TransferError if NIXL fails; from then on `refusal` says so."""
        del lease
        if pool.layout.kind not in self._infos:
            await asyncio.to_thread(self._register, pool)
        return self._infos[pool.layout.kind] | {"agent": self._metadata}

    def lease_ended(self, lease: Lease) -> None:
        """Nothing is kept per lease."""

    async def close(self) -> None:
        """Peers can write no more."""
        if self._agent is not None:
            await asyncio.to_thread(self._agent.close)
            self._agent = None

    def _register(self, pool: Pool) -> None:
        with self._lock:
            if pool.layout.kind in self._infos:
                return
            try:
                if self._agent is None:
                    self._agent = NixlAgent(_agent_name(self._instance_id, "receiver"))
                memory = self._agent.register(pool.memory).memory
                self._metadata = base64.b64encode(self._agent.metadata()).decode()
            except TransferError as error:
                self._problem = str(error)
                raise
            self._infos[pool.layout.kind] = {
                "address": memory.address,
                "memory": memory.kind,
                "device": memory.device_index,
                "num_blocks": pool.num_blocks,
            }


def _agent_name(instance_id: str, end: str) -> str:
    """Another one in each life."""
    return f"{instance_id or 'instance'}-{end}-{secrets.token_hex(8)}"
