"""What is particular to NIXL: agents, registrations, and writes that nobody can call back."""

from __future__ import annotations

import pytest
import torch

from kv_transfer import sender as sender_module
from kv_transfer.errors import TransferError
from kv_transfer.layout import PayloadKind
from kv_transfer.pool import Pool
from kv_transfer.sender import PeerAddress, Sender
from kv_transfer.transports import nixl_agent, nixl_writer
from kv_transfer.transports.nixl import NixlAcceptor, NixlTransport
from kv_transfer.transports.nixl_agent import NixlAgent
from kv_transfer.transports.nixl_peers import NixlPeers
from kv_transfer.transports.registry import usable
from tests.kv_transfer.child import digest
from tests.kv_transfer.children import Child
from tests.kv_transfer.loopback import KEY, MakeSender, Receive, Receiving, needs_nixl, until


async def send(sender: Sender, peer: Receiving, source: Pool, tokens: int = 20) -> None:
    outgoing = await sender.open(peer.address, KEY, PayloadKind.KV, 0, tokens, source)
    assert outgoing.transport == "nixl"
    outgoing.push(0, tokens, range(6), range(4))
    await outgoing.commit(tokens)
    blocks = peer.host.kv.pop()[1]
    assert torch.equal(peer.kv.read_tokens(blocks, tokens), source.read_tokens(range(4), tokens))
    peer.kv.blocks.release(blocks)


def peers_of(sender: Sender) -> NixlPeers:
    transport = sender._transports["nixl"]
    assert isinstance(transport, NixlTransport)
    return transport._peers


def test_it_is_refused_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nixl_agent.importlib.util, "find_spec", lambda _: None)
    assert "nixl" not in usable(None)
    with pytest.raises(ValueError, match="nixl cannot be had here: nixl is not installed"):
        usable(["nixl"])


def test_a_package_that_cannot_be_imported_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ImportError("no backend found") if name == "nixl" else ModuleNotFoundError(name)

    monkeypatch.setattr(nixl_agent.importlib, "import_module", fail)
    with pytest.raises(TransferError, match="starting the agent: no backend found"):
        NixlAgent("agent")


@needs_nixl
async def test_pools_that_are_registered_later_are_known_too(
    receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    sender = sender_with("nixl")
    for _ in range(2):
        await send(sender, peer, source)
        embedding = torch.randn(35, 24).to(torch.bfloat16)
        assert await sender.send_embedding(peer.address, KEY, 0, embedding) == "nixl"
        blocks = peer.host.embeddings.pop()[2]
        assert torch.equal(peer.embeddings.read_tokens(blocks, 35), embedding)
        peer.embeddings.blocks.release(blocks)
    assert list(peers_of(sender)._lasting) == [(source.tensor.data_ptr(), source.tensor.nbytes)]
    peer.assert_nothing_is_held()


@needs_nixl
async def test_a_peer_is_loaded_once_in_each_life(
    receive: Receive, sender_with: MakeSender, source: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, dropped = [], []
    load, drop = NixlAgent.load, NixlAgent.drop
    monkeypatch.setattr(NixlAgent, "load", lambda agent, data: loaded.append(data) or load(agent, data))
    monkeypatch.setattr(NixlAgent, "drop", lambda agent, name: dropped.append(name) or drop(agent, name))
    sender = sender_with("nixl")
    old = await receive(is_shared=False)
    await send(sender, old, source)
    await send(sender, old, source)
    assert (len(loaded), dropped) == (1, [])
    await old.server.stop(None)
    await old.receiver.close()
    await send(sender, await receive(is_shared=False, epoch=8), source)
    assert (len(loaded), len(dropped)) == (2, 1)
    sender.forget("receiver")
    await until(lambda: len(dropped) == 2)


@needs_nixl
@pytest.mark.parametrize(("field", "value"), [("agent", "?"), ("agent", "AAAA"), ("address", -1)])
async def test_a_peer_that_cannot_be_linked_is_sent_to_by_grpc(
    field: str,
    value: object,
    receive: Receive,
    sender_with: MakeSender,
    source: Pool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grant_info = NixlAcceptor.grant_info

    async def broken(*arguments: object) -> object:
        return await grant_info(*arguments) | {field: value}  # type: ignore[arg-type]

    monkeypatch.setattr(NixlAcceptor, "grant_info", broken)
    peer = await receive()
    sender = sender_with("nixl", "grpc")
    with pytest.raises(TransferError) as caught:
        await send(sender, peer, source)
    assert caught.value.cause in {"ATTACH", "NIXL"}
    outgoing = await sender.open(peer.address, KEY, PayloadKind.KV, 0, 4, source)
    assert outgoing.transport == "grpc"
    await outgoing.abort("done")
    peer.assert_nothing_is_held()


@needs_nixl
async def test_a_receiver_without_an_agent_says_why(
    receive: Receive, sender_with: MakeSender, source: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise TransferError("NIXL", "registering memory: no room")

    monkeypatch.setattr(NixlAgent, "register", fail)
    peer = await receive()
    sender = sender_with("nixl")
    with pytest.raises(TransferError):
        await send(sender, peer, source)
    with pytest.raises(TransferError, match="nixl: registering memory: no room"):
        await send(sender, peer, source)
    peer.assert_nothing_is_held()


@needs_nixl
async def test_writes_under_way_are_bounded(
    receive: Receive, sender_with: MakeSender, source: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    posted: list[int] = []
    write = NixlAgent.write

    def count(agent: NixlAgent, *arguments: object) -> int:
        posted.append(write(agent, *arguments))  # type: ignore[arg-type]
        return posted[-1]

    monkeypatch.setattr(NixlAgent, "write", count)
    monkeypatch.setattr(nixl_writer, "SLICE_BYTES", 32)  # one token
    is_done = NixlAgent.is_done
    monkeypatch.setattr(NixlAgent, "is_done", lambda *_: False)
    peer = await receive()
    outgoing = await sender_with("nixl").open(peer.address, KEY, PayloadKind.KV, 0, 20, source)
    outgoing.push(0, 20, range(6), range(4))
    await until(lambda: len(posted) == nixl_writer.MAX_POSTED)
    outgoing.push(0, 20, range(6), range(4))
    monkeypatch.setattr(NixlAgent, "is_done", is_done)
    await outgoing.commit(20)
    assert len(posted) >= 120
    blocks = peer.host.kv[0][1]
    assert torch.equal(peer.kv.read_tokens(blocks, 20), source.read_tokens(range(4), 20))


@needs_nixl
async def test_a_lease_with_writes_under_way_is_left_to_expire(
    receive: Receive, sender_with: MakeSender, source: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[object] = []
    close, is_done = NixlPeers.close, NixlAgent.is_done
    monkeypatch.setattr(NixlPeers, "close", lambda peers, link: closed.append(link) or close(peers, link))
    monkeypatch.setattr(NixlAgent, "is_done", lambda *_: False)
    monkeypatch.setattr(nixl_writer, "STOP_TIMEOUT_S", 0.01)
    peer = await receive()
    sender = sender_with("nixl")
    outgoing = await sender.open(peer.address, KEY, PayloadKind.KV, 0, 20, source)
    outgoing.push(0, 20, range(6), range(4))
    await until(lambda: outgoing._writer._posted)  # type: ignore[attr-defined]
    await outgoing.abort("cancelled")
    assert (peer.num_open, sender.stats.in_flight, closed) == (1, 0, [])
    monkeypatch.setattr(NixlAgent, "is_done", is_done)
    await until(lambda: closed)
    assert [peer.num_users for peer in peers_of(sender)._peers.values()] == [0]


@needs_nixl
async def test_a_write_that_never_ends_fails_the_transfer(
    receive: Receive, sender_with: MakeSender, source: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NixlAgent, "is_done", lambda *_: False)
    monkeypatch.setattr(nixl_writer, "STALL_TIMEOUT_S", 0.0)
    monkeypatch.setattr(nixl_writer, "STOP_TIMEOUT_S", 0.01)
    peer = await receive()
    with pytest.raises(TransferError) as caught:
        await send(sender_with("nixl"), peer, source)
    assert caught.value.cause == "STALLED"
    assert peer.num_open == 1


@needs_nixl
async def test_a_lost_connection_is_not_joined_by_new_transfers(
    receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    sender = sender_with("nixl")
    outgoing = await sender.open(peer.address, KEY, PayloadKind.KV, 0, 20, source)
    outgoing.push(0, 20, range(6), range(4))
    await until(lambda: outgoing._writer._link)  # type: ignore[attr-defined]
    sender.forget("receiver")
    peer.host.known.add(("other", 0))
    other = await sender.open(peer.address, ("other", 0), PayloadKind.KV, 0, 20, source)
    other.push(0, 20, range(6), range(4))
    with pytest.raises(TransferError) as caught:
        await other.commit(20)
    assert caught.value.cause == "LEAVING"
    await outgoing.abort("done")
    await send(sender, peer, source)


@pytest.mark.cluster
@needs_nixl
async def test_a_receiver_that_was_frozen_goes_on(
    peer: tuple[Child, PeerAddress], sender_with: MakeSender, source: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, "ABORT_TIMEOUT_S", 0.05)
    monkeypatch.setattr(nixl_writer, "STOP_TIMEOUT_S", 0.05)
    child, address = peer
    sender = sender_with("nixl")
    outgoing = await sender.open(address, ("frozen", 0), PayloadKind.KV, 0, 20, source)
    await child.stop()
    outgoing.push(0, 20, range(6), range(4))
    await outgoing.abort("cancelled")
    child.go_on()
    for attempt in range(3):
        again = await sender.open(address, KEY, PayloadKind.KV, 0, 20, source)
        again.push(0, 20, range(6), range(attempt, attempt + 4))
        await again.commit(20)
        assert (await child.hear())["digest"] == digest(source, list(range(attempt, attempt + 4)), 20)
    await child.finish()
