"""The transport `collective`: pairs are made, shared, broken and made again, and leave nothing."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from kv_transfer.errors import TransferError
from kv_transfer.layout import PayloadKind
from kv_transfer.outgoing import Outgoing
from kv_transfer.pool import Pool, kv_layout
from kv_transfer.sender import Sender
from kv_transfer.source import TensorSource
from kv_transfer.transports.backlog import Backlog
from kv_transfer.transports.collective import groups, receiving
from kv_transfer.transports.collective.acceptor import CollectiveAcceptor
from kv_transfer.transports.collective.frames import Frame, Verb, pack_greeting
from kv_transfer.transports.collective.sending import SendingPair
from kv_transfer.transports.collective.staging import DeviceStaging, HostStaging
from kv_transfer.transports.registry import usable
from tests.kv_transfer.loopback import FINGERPRINT, KEY, MakeSender, Receive, Receiving, until

BLOCKS = [3, 9, 10, 11, 0, 7]


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """Also asks for the threads of gloo and of the stores, which Python does not list."""
    yield
    assert pair_threads() == []
    assert native_threads() == []


@pytest.fixture
async def sender(sender_with: MakeSender) -> Sender:
    return sender_with("collective")


def pair_threads(side: str = "") -> list[str]:
    return [thread.name for thread in threading.enumerate() if f"kv-collective-{side}" in thread.name]


def native_threads() -> list[str]:
    names = [task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    return [name for name in names if "gloo" in name or "tcpstore" in name]


def pairs_of(sender: Sender) -> list[SendingPair]:
    return list(sender._transports["collective"]._pairs.values())


def acceptor_of(peer: Receiving) -> CollectiveAcceptor:
    acceptor = peer.receiver._acceptors["collective"]
    assert isinstance(acceptor, CollectiveAcceptor)
    return acceptor


async def open_to(sender: Sender, peer: Receiving, source: Pool, attempt: int = 0) -> Outgoing:
    peer.host.known.add((KEY[0], attempt))
    return await sender.open(peer.address, (KEY[0], attempt), PayloadKind.KV, 0, 20, source)


async def send(sender: Sender, peer: Receiving, source: Pool, attempt: int = 0) -> None:
    """One transfer of 20 tokens, checked; its blocks go back."""
    outgoing = await open_to(sender, peer, source, attempt)
    outgoing.push(0, 20, range(6), BLOCKS)
    await outgoing.commit(20)
    _, blocks, _, _ = peer.host.kv.pop()
    for plane in range(6):
        expected = source.read_tokens(BLOCKS, 20, plane=plane)
        assert torch.equal(peer.kv.read_tokens(blocks, 20, plane=plane), expected)
    peer.kv.blocks.release(blocks)


async def test_transfers_share_one_pair(receive: Receive, sender: Sender, source: Pool) -> None:
    peer = await receive(kv_blocks=64)
    for attempt in range(4):
        await send(sender, peer, source, attempt)
    assert len(pairs_of(sender)) == len(acceptor_of(peer)._pairs) == 1
    assert sorted(pair_threads()) == ["kv-collective-receive", "kv-collective-send"]
    peer.assert_nothing_is_held()


async def test_first_transfers_at_once_share_one_pair(
    receive: Receive, sender: Sender, source: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    listeners: list[socket.socket] = []
    listen = CollectiveAcceptor._listen

    async def counted(acceptor: CollectiveAcceptor) -> socket.socket:
        listeners.append(await listen(acceptor))
        return listeners[-1]

    monkeypatch.setattr(CollectiveAcceptor, "_listen", counted)
    peer = await receive(kv_blocks=64)
    opened = await asyncio.gather(*(open_to(sender, peer, source, attempt) for attempt in range(4)))
    assert (len(listeners), len(pairs_of(sender)), len(pair_threads("receive"))) == (1, 1, 1)
    await asyncio.gather(*(outgoing.abort("done") for outgoing in opened))


async def test_both_directions_at_once(
    receive: Receive, sender_with: MakeSender, source: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kv_transfer.transports.collective.transport.SLICE_BYTES", 256)
    ends = [await receive(instance_id=name, kv_blocks=64) for name in ("one", "two")]
    senders = [sender_with("collective", instance_id=name) for name in ("one", "two")]
    for attempt in range(3):
        await asyncio.gather(
            send(senders[0], ends[1], source, attempt), send(senders[1], ends[0], source, attempt)
        )
    assert len(pair_threads("send")) == len(pair_threads("receive")) == 2


async def test_an_abort_leaves_the_pair_to_the_others(receive: Receive, sender: Sender, source: Pool) -> None:
    peer = await receive(kv_blocks=64)
    first, second = [await open_to(sender, peer, source, attempt) for attempt in (1, 2)]
    for layer in range(2):
        first.push(0, 20, range(2 * layer, 2 * layer + 2), BLOCKS)
    second.push(0, 20, range(6), BLOCKS)
    await first.abort("cancelled")
    await second.commit(20)
    peer.kv.blocks.release(peer.host.kv.pop()[1])
    await send(sender, peer, source)
    assert len(pairs_of(sender)) == 1
    peer.assert_nothing_is_held()


async def test_the_sender_hears_that_a_lease_ended(receive: Receive, sender: Sender, source: Pool) -> None:
    peer = await receive()
    outgoing = await open_to(sender, peer, source)
    peer.receiver.release_request(KEY, "cancelled by the client")
    assert peer.kv.blocks.num_free == 16  # no quarantine
    outgoing.push(0, 20, range(2), BLOCKS)
    await until(lambda: outgoing.error)
    with pytest.raises(TransferError, match="takes nothing any more: cancelled by the client") as caught:
        await outgoing.commit(20)
    assert caught.value.cause == "REFUSED"
    assert not peer.kv.tensor.any()
    await send(sender, peer, source)


async def test_the_end_of_a_lease_waits_for_the_slice_that_is_written(
    receive: Receive, sender: Sender, source: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, may_write, is_ended = threading.Event(), threading.Event(), threading.Event()
    scatter = HostStaging.scatter

    def slowly(*arguments: Any) -> None:
        writing.set()
        assert may_write.wait(60)
        assert not is_ended.is_set()
        scatter(*arguments)

    monkeypatch.setattr(HostStaging, "scatter", slowly)
    peer = await receive()
    outgoing = await open_to(sender, peer, source)
    [lease] = peer.receiver.leases
    outgoing.push(0, 20, range(6), BLOCKS)
    await until(writing.is_set)

    def end() -> None:
        acceptor_of(peer).lease_ended(lease)
        is_ended.set()

    ending = asyncio.create_task(asyncio.to_thread(end))
    may_write.set()
    await ending
    with pytest.raises(TransferError, match="takes nothing"):
        await outgoing.commit(20)


async def test_only_its_own_sender_writes_into_a_lease(
    receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    mine, other = sender_with("collective"), sender_with("collective", instance_id="other")
    theirs = await open_to(other, peer, source, 1)
    outgoing = await open_to(mine, peer, source)
    outgoing._writer.lease_id = theirs.lease_id
    pairs_of(mine)[0].add(outgoing._writer)
    outgoing.push(0, 20, range(6), BLOCKS)
    with pytest.raises(TransferError, match="granted to another sender"):
        await outgoing.commit(20)
    assert not peer.kv.tensor.any()
    await theirs.abort("done")
    peer.assert_nothing_is_held()


BAD_FRAMES = [
    (Frame(Verb.PAYLOAD, 0, 5, 2, 0, 4, 256), "planes 5 to 7 are not within 6"),
    (Frame(Verb.PAYLOAD, 0, 0, 1, 4, 4, 128), "tokens before 4 are missing"),
    (Frame(Verb.PAYLOAD, 0, 0, 1, 0, 21, 672), "tokens 0 to 21 are not within 20"),
    (Frame(Verb.PAYLOAD, 0, 0, 1, 0, 4, 96), "96 bytes are not its planes' tokens"),
]


@pytest.mark.parametrize(("frame", "words"), BAD_FRAMES)
async def test_frames_that_do_not_fit_the_lease(
    frame: Frame, words: str, receive: Receive, sender: Sender, source: Pool
) -> None:
    peer = await receive()
    outgoing = await open_to(sender, peer, source)
    target = acceptor_of(peer)._targets.find(outgoing.lease_id)
    with pytest.raises(receiving.LeaseRefused, match=words):
        target.write(frame, "sender", HostStaging(), 0)
    assert not any(next(iter(peer.receiver.leases)).written)


async def break_pair(peer: Receiving) -> None:
    """As if the connection was cut at the receiver's end."""
    for pair in list(acceptor_of(peer)._pairs):
        pair.hang_up()
    await until(lambda: not acceptor_of(peer)._pairs)


async def test_a_broken_pair_is_made_again(receive: Receive, sender: Sender, source: Pool) -> None:
    peer = await receive()
    await send(sender, peer, source)
    [pair] = pairs_of(sender)
    outgoing = await open_to(sender, peer, source)
    outgoing.push(0, 20, range(4), BLOCKS)
    await break_pair(peer)
    await until(lambda: pair.is_over and outgoing.error)  # an idle end notices, too
    outgoing.push(0, 20, range(4, 6), BLOCKS)
    with pytest.raises(TransferError) as caught:
        await outgoing.commit(20)
    assert caught.value.cause == "PEER_LOST"
    await until(lambda: pair_threads() == [] and native_threads() == [])
    await send(sender, peer, source)
    assert pairs_of(sender) != [pair]
    peer.assert_nothing_is_held()


async def test_a_peer_that_takes_no_payload_is_given_up(
    receive: Receive, sender: Sender, source: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on = threading.Event()
    monkeypatch.setattr(sender._transports["collective"], "_timeout_s", 0.3)
    monkeypatch.setattr(receiving.Inbox, "_receive", lambda *_: may_go_on.wait(60) and None)
    peer = await receive()
    outgoing = await open_to(sender, peer, source)
    outgoing.push(0, 20, range(6), BLOCKS)
    with pytest.raises(TransferError) as caught:
        await outgoing.commit(20)
    assert caught.value.cause == "TIMEOUT"
    may_go_on.set()
    monkeypatch.undo()
    await send(sender, peer, source)
    peer.assert_nothing_is_held()


async def test_a_restart_under_the_same_address(receive: Receive, sender: Sender, source: Pool) -> None:
    old = await receive(instance_id="peer", is_shared=False)
    await send(sender, old, source)
    [pair] = pairs_of(sender)
    await old.server.stop(None)
    await old.receiver.close()
    await until(lambda: pair.is_over)
    port = int(old.address.endpoint.rpartition(":")[2])
    new = await receive(instance_id="peer", epoch=8, port=port, is_shared=False)
    await send(sender, new, source)
    assert len(pairs_of(sender)) == 1
    assert pairs_of(sender) != [pair]


async def test_forgetting_a_peer_ends_its_pair(receive: Receive, sender: Sender, source: Pool) -> None:
    peer = await receive()
    await send(sender, peer, source)
    sender.forget("receiver")
    await until(lambda: pair_threads() == [] and native_threads() == [])
    await send(sender, peer, source)


async def test_where_no_pair_can_be_made_the_next_transport_is_taken(
    receive: Receive, sender_with: MakeSender, source: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such interface")

    monkeypatch.setattr("kv_transfer.transports.collective.link.GlooLane", fail)
    peer = await receive()
    outgoing = await open_to(sender_with("collective", "grpc"), peer, source)
    assert outgoing.transport == "grpc"
    await outgoing.abort("done")
    with pytest.raises(TransferError, match="no such interface"):
        await open_to(sender_with("collective"), peer, source)
    await until(lambda: not list(peer.receiver.leases))
    peer.assert_nothing_is_held()


async def test_a_caller_that_leaves_while_the_pair_is_made(
    receive: Receive, sender: Sender, source: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on = threading.Event()
    join = groups.GlooLane.__init__

    def slowly(*arguments: Any) -> None:
        may_go_on.wait(60)
        join(*arguments)

    monkeypatch.setattr(groups.GlooLane, "__init__", slowly)
    peer = await receive()
    opening = asyncio.create_task(open_to(sender, peer, source))
    await until(lambda: pairs_of(sender))
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    may_go_on.set()
    await until(lambda: not list(peer.receiver.leases))
    peer.assert_nothing_is_held()
    await send(sender, peer, source)


STRANGERS: list[Callable[[], bytes]] = [
    lambda: pack_greeting({"instance_id": "sender", "token": "guessed", "backend": "gloo"}),
    lambda: pack_greeting({"instance_id": "sender"}),
    lambda: b"\xff\xff\xff\xff",
    lambda: b"\x02\x00\x00\x00[]",
    lambda: b"",
]


@pytest.mark.parametrize("hello", STRANGERS)
async def test_strangers_are_turned_away(
    hello: Callable[[], bytes], receive: Receive, sender: Sender, source: Pool
) -> None:
    peer = await receive()
    await open_to(sender, peer, source)
    listener = acceptor_of(peer)._listener
    assert listener is not None
    assert listener.getsockname()[0] == "127.0.0.1"
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    writer.write(hello())
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    assert len(acceptor_of(peer)._pairs) == 1


def test_a_store_listens_on_its_own_address_only() -> None:
    rendezvous = groups.Rendezvous("127.0.0.1", 5)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", rendezvous.port), timeout=1)
    socket.create_connection(("127.0.0.1", rendezvous.port), timeout=1).close()


def test_torch_without_distributed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    assert "collective" not in usable(None)
    with pytest.raises(
        ValueError, match="collective cannot be had here: torch was built without distributed"
    ):
        usable(["collective"])


@pytest.mark.parametrize("kind", ["host", "device"])
def test_staging_carries_scattered_blocks(kind: str, source: Pool) -> None:
    staging = HostStaging() if kind == "host" else DeviceStaging(torch.device("cpu"), None)
    backlog = Backlog(source.layout, 28)
    backlog.push(0, 28, range(6), BLOCKS, None)
    layout = kv_layout(FINGERPRINT, torch.float32, num_layers=3, num_heads=2, head_dim=4, block_tokens=4)
    target = Pool(layout, 16)
    blocks = [15, 2, 3, 9, 0, 1, 7]
    while (batch := backlog.take(1000)) is not None:
        data = staging.gather(1, TensorSource.of_pool(source), source.layout.heads, batch)
        planes = batch.planes
        frame = Frame(
            Verb.PAYLOAD, 1, planes.start, len(planes), batch.first_token, batch.num_tokens, data.nbytes
        )
        staging.scatter(1, frame, target, blocks, target.layout.heads)
    for plane in range(6):
        expected = source.read_tokens(BLOCKS, 28, plane=plane)
        assert torch.equal(target.read_tokens(blocks, 28, plane=plane), expected)
