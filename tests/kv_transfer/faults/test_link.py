"""The link between two ends is cut when half of the planes are written, without a word or by a reset."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from kv_transfer import channels
from kv_transfer.errors import TransferError
from kv_transfer.layout import PayloadKind
from kv_transfer.outgoing import Outgoing
from kv_transfer.pool import Pool
from kv_transfer.sender import PeerAddress, Sender
from tests.kv_transfer.faults.link import Link
from tests.kv_transfer.faults.survivors import BLOCKS, assert_senders_are_whole, assert_sent, send, threads
from tests.kv_transfer.loopback import KEY, MakeSender, Receive, Receiving, until

OVER_THE_LINK = pytest.mark.parametrize("transport", ["collective", "grpc"])
SOON = {
    "grpc.min_reconnect_backoff_ms": 2000,
    "grpc.keepalive_time_ms": 1000,
    "grpc.keepalive_timeout_ms": 2000,
    "grpc.http2.ping_timeout_ms": 2000,
}


@pytest.fixture
def make(sender_with: MakeSender, monkeypatch: pytest.MonkeyPatch) -> MakeSender:
    """Senders that lose patience within a few seconds."""
    options = dict(channels.CHANNEL_OPTIONS)
    assert SOON.keys() <= options.keys()
    monkeypatch.setattr(channels, "CHANNEL_OPTIONS", tuple((options | SOON).items()))

    def made(transport: str) -> Sender:
        sender = sender_with(transport, call_timeout_s=1.0)
        if transport == "collective":
            sender._transports[transport]._timeout_s = 3.0  # type: ignore[attr-defined]
        return sender

    return made


async def half_way(sender: Sender, address: PeerAddress, peer: Receiving, source: Pool) -> Outgoing:
    """A transfer of which half of the planes came."""
    outgoing = await sender.open(address, KEY, PayloadKind.KV, 0, 20, source)
    outgoing.push(0, 20, range(3), BLOCKS)
    [lease] = peer.receiver.leases
    await until(lambda: lease.written == [20, 20, 20, 0, 0, 0])
    return outgoing


@OVER_THE_LINK
async def test_bytes_get_lost_without_a_word(
    transport: str, receive: Receive, make: MakeSender, source: Pool, link: Link
) -> None:
    peer = await receive(lease_s=3.0, checksums=True)
    sender = make(transport)
    address = await link.reach(peer.address)
    outgoing = await half_way(sender, address, peer, source)
    link.cut()
    outgoing.push(0, 20, range(3, 6), BLOCKS)
    with pytest.raises(TransferError) as caught:
        await outgoing.commit(20)
    assert caught.value.cause in {"TIMEOUT", "DEADLINE_EXCEEDED", "UNAVAILABLE"}
    assert link.num_lost_bytes > 0
    await assert_senders_are_whole([sender])
    await until(lambda: not list(peer.receiver.leases))
    peer.assert_nothing_is_held()
    link.mend()
    async with asyncio.timeout(30):
        while not peer.host.kv:  # the first tries may find a connection that is not yet known to be dead
            with contextlib.suppress(TransferError):
                await send(sender, address, source, KEY)
    assert_sent(peer, source)
    assert len(threads("kv-collective-receive")) == (1 if transport == "collective" else 0)


@OVER_THE_LINK
async def test_the_connections_are_reset(
    transport: str, receive: Receive, make: MakeSender, source: Pool, link: Link
) -> None:
    peer = await receive(checksums=True)
    sender = make(transport)
    address = await link.reach(peer.address)
    outgoing = await half_way(sender, address, peer, source)
    link.reset()
    outgoing.push(0, 20, range(3, 6), BLOCKS)
    with pytest.raises(TransferError) as caught:
        await outgoing.commit(20)
    assert caught.value.cause in {"PEER_LOST", "UNAVAILABLE", "FAILED_PRECONDITION"}
    await assert_senders_are_whole([sender])
    await until(lambda: not list(peer.receiver.leases))
    peer.assert_nothing_is_held()
    await send(sender, address, source, KEY)
    assert_sent(peer, source)
