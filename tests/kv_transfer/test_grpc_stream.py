"""Messages of the gRPC stream: as few as their bound allows."""

from __future__ import annotations

import pytest
import torch

from kv_transfer.layout import PayloadKind
from kv_transfer.pool import Pool
from kv_transfer.receiver import TransferReceiver
from kv_transfer.transports import grpc_stream
from tests.kv_transfer.loopback import KEY, MakeSender, Receive

BLOCKS = [3, 9, 10, 0]


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list[tuple[range, int, int]]:
    """Planes, first token and bytes of what arrived."""
    found: list[tuple[range, int, int]] = []
    write = TransferReceiver.write

    def spy(self: TransferReceiver, lease_id: int, planes: range, first_token: int, data: bytes) -> object:
        found.append((planes, first_token, len(data)))
        return write(self, lease_id, planes, first_token, data)

    monkeypatch.setattr(TransferReceiver, "write", spy)
    return found


async def test_what_fits_a_message_is_one(
    messages: list[tuple[range, int, int]], receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    outgoing = await sender_with("grpc").open(peer.address, KEY, PayloadKind.KV, 0, 18, source)
    outgoing.push(0, 18, range(6), BLOCKS)
    await outgoing.commit(18)
    assert messages == [(range(6), 0, 18 * 6 * 32)]


async def test_larger_pushes_are_cut_between_planes_then_tokens(
    messages: list[tuple[range, int, int]],
    receive: Receive,
    sender_with: MakeSender,
    source: Pool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    peer = await receive()
    outgoing = await sender_with("grpc").open(peer.address, KEY, PayloadKind.KV, 0, 18, source)
    monkeypatch.setattr(grpc_stream, "CHUNK_BYTES", 1024)
    outgoing.push(0, 8, range(6), BLOCKS)
    outgoing.push(8, 10, range(6), BLOCKS)
    await outgoing.commit(18)
    assert all(size_bytes <= 1024 for _, _, size_bytes in messages)
    assert sum(size_bytes for _, _, size_bytes in messages) == 18 * 6 * 32
    [(_, blocks, _, _)] = peer.host.kv
    for plane in range(6):
        assert torch.equal(
            peer.kv.read_tokens(blocks, 18, plane=plane), source.read_tokens(BLOCKS, 18, plane=plane)
        )
