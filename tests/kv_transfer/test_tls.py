"""Transfers through mutual TLS, and who is kept out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import torch
from cryptography.hazmat.primitives import serialization

from core.access import token_metadata
from elasticmm.v1 import transfer_pb2, transfer_pb2_grpc
from kv_transfer.channels import Channels
from kv_transfer.errors import TransferError
from kv_transfer.layout import PayloadKind
from kv_transfer.pool import Pool
from kv_transfer.tls import TlsFiles, connection_problem
from kv_transfer.transports.base import PeerAddress
from tests.certificates import Authority
from tests.kv_transfer.loopback import KEY, TOKEN, MakeSender, Receive, Receiving


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ours")


@pytest.fixture
def others(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "others")


async def refusal(sender_with: MakeSender, peer: Receiving, tls: TlsFiles | None) -> TransferError:
    """How a sender with these certificates fails; the receiver must not have heard of it."""
    sender = sender_with("grpc", tls=tls)
    with pytest.raises(TransferError) as caught:
        async with asyncio.timeout(60):
            await sender.send_embedding(peer.address, KEY, 0, torch.zeros(3, 24, dtype=torch.bfloat16))
    assert peer.host.expected == []
    peer.assert_nothing_is_held()
    assert sender.stats.of("receiver", "").failures == {caught.value.cause: 1}
    return caught.value


@pytest.mark.parametrize("transport", ["shm", "grpc"])
async def test_kv_arrives(
    transport: str, receive: Receive, sender_with: MakeSender, source: Pool, authority: Authority
) -> None:
    peer = await receive(tls=authority.issue())
    sender = sender_with(transport, tls=authority.issue("a-sender"))
    outgoing = await sender.open(peer.address, KEY, PayloadKind.KV, 0, 20, source)
    outgoing.push(0, 20, range(6), [3, 9, 10, 0])
    await outgoing.commit(20)
    [(_, blocks, _, _)] = peer.host.kv
    for plane in range(6):
        expected = source.read_tokens([3, 9, 10, 0], 20, plane=plane)
        assert torch.equal(peer.kv.read_tokens(blocks, 20, plane=plane), expected)
    aborted = await sender.open(peer.address, KEY, PayloadKind.KV, 0, 20, source)
    await aborted.abort("no more of it")
    peer.kv.blocks.release(blocks)
    peer.assert_nothing_is_held()


async def test_a_stranger_without_a_certificate(receive: Receive, authority: Authority) -> None:
    """It trusts the server, and even knows the cluster's token."""
    files = authority.issue()
    peer = await receive(tls=files)
    credentials = grpc.ssl_channel_credentials(files.ca.read_bytes())
    async with grpc.aio.secure_channel(peer.address.endpoint, credentials) as channel:
        stub = transfer_pb2_grpc.TransferStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Abort(
                transfer_pb2.AbortRequest(lease_id=1), metadata=token_metadata(TOKEN), timeout=60
            )
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_receiver_refuses_another_authority(
    receive: Receive, sender_with: MakeSender, authority: Authority, others: Authority
) -> None:
    peer = await receive(tls=authority.issue())
    stranger = replace(others.issue(), ca=authority.cert)
    error = await refusal(sender_with, peer, stranger)
    assert error.cause == "UNAVAILABLE"
    assert "this end's certificate was refused" in str(error)


async def test_a_sender_refuses_another_authority(
    receive: Receive, sender_with: MakeSender, authority: Authority, others: Authority
) -> None:
    peer = await receive(tls=others.issue())
    error = await refusal(sender_with, peer, authority.issue())
    assert error.cause == "TLS"
    assert "does not hold before tls_ca" in str(error)


async def test_a_wrong_name_unless_it_is_expected(
    receive: Receive, sender_with: MakeSender, source: Pool, authority: Authority
) -> None:
    common = authority.issue("stage.elasticmm")
    peer = await receive(tls=common)
    error = await refusal(sender_with, peer, common)
    assert error.cause == "TLS"
    assert "another name (see tls_name)" in str(error)
    sender = sender_with("grpc", tls=replace(common, name="stage.elasticmm"))
    outgoing = await sender.open(peer.address, KEY, PayloadKind.KV, 0, 4, source)
    await outgoing.abort("enough")
    peer.assert_nothing_is_held()


async def test_a_plain_sender(receive: Receive, sender_with: MakeSender, authority: Authority) -> None:
    peer = await receive(tls=authority.issue())
    error = await refusal(sender_with, peer, None)
    assert error.cause == "UNAVAILABLE"
    assert "one end speaks TLS and the other does not" in str(error)


async def test_a_plain_receiver(receive: Receive, sender_with: MakeSender, authority: Authority) -> None:
    error = await refusal(sender_with, await receive(), authority.issue())
    assert error.cause == "TLS"
    assert "the peer does not speak TLS" in str(error)


@pytest.mark.parametrize("name", ["collective", "nixl"])
async def test_no_transport_passes_it_by(name: str, sender_with: MakeSender, authority: Authority) -> None:
    tls = authority.issue()
    assert {"shm", "grpc"} <= (names := set(sender_with(tls=tls)._transports))
    assert name not in names
    with pytest.raises(ValueError, match=f"{name} cannot be had here: it does not go through TLS"):
        sender_with(name, tls=tls)


def test_nobody_listening_is_no_matter_of_tls() -> None:
    assert connection_problem("failed to connect to all addresses: Connection refused") == ("", False)


async def broken(channels: Channels, peer: PeerAddress) -> str:
    """What is said of a connection to the peer that breaks."""
    none = grpc.aio.Metadata()

    async def call() -> None:
        raise grpc.aio.AioRpcError(
            grpc.StatusCode.UNAVAILABLE, none, none, details="sendmsg: Broken pipe (32)"
        )

    with pytest.raises(TransferError) as caught:
        await channels.answer(peer, call(), "open refused")
    assert caught.value.cause == "UNAVAILABLE"
    return str(caught.value)


async def test_a_link_that_breaks_is_a_matter_of_tls_only_before_the_first_answer() -> None:
    channels, peer = Channels(TOKEN), PeerAddress("a", "127.0.0.1:1", "here", 1)
    assert "one end speaks TLS and the other does not" in await broken(channels, peer)
    await channels.answer(peer, asyncio.sleep(0), "open refused")
    assert "TLS" not in await broken(channels, peer)
    assert "one end speaks TLS" in await broken(channels, replace(peer, epoch=2))


async def test_a_refusal_is_an_answer(
    receive: Receive, sender_with: MakeSender, source: Pool, authority: Authority
) -> None:
    peer = await receive(tls=authority.issue())
    sender = sender_with("grpc", tls=authority.issue())
    with pytest.raises(TransferError) as caught:
        await sender.open(replace(peer.address, epoch=99), KEY, PayloadKind.KV, 0, 4, source)
    assert caught.value.cause == "FAILED_PRECONDITION"
    assert "TLS" not in await broken(sender._channels, replace(peer.address, epoch=99))


def encrypt(path: Path) -> None:
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    secret = serialization.BestAvailableEncryption(b"secret")
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret))


SPOILT: list[tuple[str, Callable[[Path], object], str]] = [
    ("cert", Path.unlink, "tls_cert: .*127.0.0.1.pem cannot be read: No such file"),
    ("key", Path.unlink, "tls_key: .*127.0.0.1.key cannot be read: No such file"),
    ("ca", lambda path: (path.unlink(), path.mkdir()), "tls_ca: .*ca.pem cannot be read: Is a directory"),
    ("ca", lambda path: path.write_text("x"), "tls_ca: .*ca.pem holds no certificate in PEM"),
    ("cert", lambda path: path.write_text("x"), "tls_cert: .*no certificate and its key in PEM"),
    ("key", lambda path: path.write_bytes(path.with_name("b.key").read_bytes()), "tls_cert: .*MISMATCH"),
    ("key", encrypt, "tls_cert: .*without a password"),
]


@pytest.mark.parametrize(("file", "spoil", "words"), SPOILT, ids=[words[:12] for _, _, words in SPOILT])
def test_files_that_do_not_fit_are_named(
    authority: Authority, file: str, spoil: Callable[[Path], object], words: str
) -> None:
    authority.issue("b")
    files = authority.issue()
    spoil(getattr(files, file))
    with pytest.raises(ValueError, match=words):
        replace(files)
