"""What a sender's NIXL agent has registered and loaded. Used in one thread."""

from __future__ import annotations

import base64
import binascii
import contextlib
from dataclasses import dataclass

from kv_transfer.descriptors import End
from kv_transfer.errors import AttachError, TransferError
from kv_transfer.source import PlaneSource
from kv_transfer.transports.base import PeerAddress, Transfer
from kv_transfer.transports.nixl_agent import Memory, NixlAgent, Registered

LEAVING = "LEAVING"  # cause of what goes away by itself


@dataclass(slots=True)
class Peer:
    """A receiver's agent in one of its lives, as it is loaded here."""

    agent_name: str
    epoch: int
    metadata: str  # as it was loaded last
    num_users: int = 0


@dataclass(frozen=True, slots=True)
class Link:
    """Both ends of one transfer's writes."""

    peer: Peer
    source: Registered
    target: Memory
    here: End
    there: End
    is_source_lasting: bool


class NixlPeers:
    """Opens and closes the links of transfers; starts the agent with the first.

    A connection is dropped with its last user only: writes that are under way are
    not called back by dropping it, and still read the source.
    """

    def __init__(self, agent_name: str) -> None:
        self._agent_name = agent_name
        self._agent: NixlAgent | None = None
        self._peers: dict[str, Peer] = {}  # by instance id, in its present life
        self._leaving: dict[str, Peer] = {}  # retired ones with users, by agent name
        self._broken: set[PeerAddress] = set()  # could not be linked
        self._lasting: dict[tuple[int, int], Registered] = {}  # by address and size

    @property
    def agent(self) -> NixlAgent:
        if self._agent is None:
            self._agent = NixlAgent(self._agent_name)
        return self._agent

    def is_broken(self, peer: PeerAddress) -> bool:
        """Whether opening a link to it failed. Any thread."""
        return peer in self._broken

    def open(self, transfer: Transfer) -> Link:
        """Raises TransferError; unless that goes away by itself the peer is broken until it is retired."""
        try:
            return self._open(transfer)
        except AttachError as error:
            self._broken.add(transfer.peer)
            raise TransferError("ATTACH", str(error)) from error
        except TransferError as error:
            if error.cause != LEAVING:
                self._broken.add(transfer.peer)
            raise

    def close(self, link: Link) -> None:
        """No write of this link is under way any more."""
        if not link.is_source_lasting:
            with contextlib.suppress(TransferError):  # it goes with the agent at the latest
                self.agent.deregister(link.source)
        link.peer.num_users -= 1
        self._drop_unused(link.peer)

    def retire(self, instance_id: str) -> None:
        """The peer is gone, or lives on under a new epoch."""
        self._broken = {peer for peer in self._broken if peer.instance_id != instance_id}
        peer = self._peers.pop(instance_id, None)
        if peer is not None:
            self._leaving[peer.agent_name] = peer
            self._drop_unused(peer)

    def shut_down(self) -> None:
        """Ends the agent, whatever is under way; then nothing is read or written any more."""
        self._peers.clear()
        self._leaving.clear()
        if self._agent is not None:
            self._agent.close()
            self._agent = None
        self._lasting.clear()

    def _open(self, transfer: Transfer) -> Link:
        grant, heads = transfer.grant, transfer.heads
        num_blocks = grant.number("num_blocks")
        target = Memory(
            grant.number("address"),
            grant.layout.pool_bytes(num_blocks),
            grant.text("memory"),
            grant.number("device"),
        )
        peer = self._peer(transfer)
        source = self._source(transfer.source)
        peer.num_users += 1
        return Link(
            peer,
            source,
            target,
            transfer.source.end(heads),
            End.of(grant.layout, num_blocks, heads),
            transfer.source.is_lasting,
        )

    def _peer(self, transfer: Transfer) -> Peer:
        instance_id, epoch = transfer.peer.instance_id, transfer.peer.epoch
        metadata = transfer.grant.text("agent")
        known = self._peers.get(instance_id)
        if known is not None and known.epoch != epoch:
            self.retire(instance_id)
            known = None
        if known is None or known.metadata != metadata:
            name = self.agent.load(_decoded(metadata))
            if name in self._leaving:
                raise TransferError(LEAVING, f"a lost connection to {instance_id} is still in use")
            if known is None or known.agent_name != name:
                known = self._peers[instance_id] = Peer(name, epoch, metadata)
            known.metadata = metadata
        return known

    def _source(self, source: PlaneSource) -> Registered:
        if not source.is_lasting:
            return self.agent.register(source.elements)
        key = source.elements.data_ptr(), source.elements.nbytes
        if key not in self._lasting:
            self._lasting[key] = self.agent.register(source.elements)
        return self._lasting[key]

    def _drop_unused(self, peer: Peer) -> None:
        if peer.num_users == 0 and self._leaving.get(peer.agent_name) is peer:
            del self._leaving[peer.agent_name]
            self.agent.drop(peer.agent_name)


def _decoded(metadata: str) -> bytes:
    try:
        return base64.b64decode(metadata, validate=True)
    except binascii.Error as error:
        raise AttachError(f"the receiver granted nixl with no agent's metadata: {error}") from error
