"""A receiver on a real loopback server, and a sender that reaches it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import grpc
import pytest
import torch

from core.clock import Clock, MonotonicClock
from core.ids import host_id
from kv_transfer.channels import SERVER_OPTIONS
from kv_transfer.layout import PayloadKind, PoolLayout
from kv_transfer.pool import Pool, kv_layout
from kv_transfer.receiver import TransferReceiver
from kv_transfer.segment import SegmentOwner, reap_segments
from kv_transfer.sender import PeerAddress, Sender
from kv_transfer.servicer import add_transfer_service
from kv_transfer.tls import TlsFiles, add_port
from tests.kv_transfer.children import Child, Start, receiving, start_child
from tests.kv_transfer.loopback import (
    CLUSTER,
    EMBEDDING,
    FINGERPRINT,
    KV,
    TOKEN,
    MakeSender,
    Receive,
    Receiving,
    RecordingHost,
    segments,
)


@pytest.fixture
async def receive() -> AsyncIterator[Receive]:
    """Starts receivers: `await receive(...)`."""
    running: list[Receiving] = []

    async def start(
        kv: PoolLayout = KV,
        kv_blocks: int = 16,
        instance_id: str = "receiver",
        epoch: int = 7,
        port: int = 0,
        *,
        is_shared: bool = True,
        clock: Clock | None = None,
        lease_s: float = 30.0,
        grace_s: float = 60.0,
        tls: TlsFiles | None = None,
        checksums: bool = False,
        host: RecordingHost | None = None,
    ) -> Receiving:
        owner = SegmentOwner(CLUSTER, instance_id, epoch) if is_shared else None
        pools = {
            PayloadKind.KV: Pool(kv, kv_blocks, owner=owner),
            PayloadKind.EMBEDDING: Pool(EMBEDDING, 8, owner=owner),
        }
        host = host or RecordingHost()
        receiver = TransferReceiver(
            pools,
            host,
            epoch=epoch,
            host_id=host_id(),
            clock=clock or MonotonicClock(),
            lease_s=lease_s,
            grace_s=grace_s,
            checksums=checksums,
        )
        await receiver.start()
        server = grpc.aio.server(options=SERVER_OPTIONS)
        add_transfer_service(server, receiver, TOKEN)
        port = add_port(server, f"127.0.0.1:{port}", tls)
        await server.start()
        address = PeerAddress(instance_id, f"127.0.0.1:{port}", host_id(), epoch)
        running.append(Receiving(receiver, host, server, address))
        return running[-1]

    yield start
    for each in running:
        await each.leave()
        for pool in each.receiver.pools.values():
            pool.close()


@pytest.fixture
async def sender_with() -> AsyncIterator[MakeSender]:
    """Makes senders: `sender_with("shm")`."""
    made: list[Sender] = []

    def make(*transports: str, **options: object) -> Sender:
        settings = {
            "model_fingerprint": FINGERPRINT,
            "instance_id": "sender",
            "host_id": host_id(),
            "token": TOKEN,
        }
        made.append(Sender(transports=transports or None, **(settings | options)))
        return made[-1]

    yield make
    for sender in made:
        await sender.close()
        sender.check_idle()


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts processes: `await start("receive", CLUSTER, lease_s=1.0)`."""
    children: list[Child] = []

    async def run(role: str, where: str, **options: object) -> Child:
        children.append(await start_child(role, where, options))
        return children[-1]

    yield run
    for child in children:
        await child.kill()
    reap_segments(CLUSTER)


@pytest.fixture
async def peer(start: Start) -> tuple[Child, PeerAddress]:
    """A receiving process."""
    return await receiving(start, CLUSTER)


@pytest.fixture
def source() -> Pool:
    """A sender's KV pool of other block size and count, filled with random bytes."""
    layout = kv_layout(FINGERPRINT, torch.float32, num_layers=3, num_heads=2, head_dim=4, block_tokens=5)
    pool = Pool(layout, 12)
    pool.tensor.copy_(torch.randn(pool.tensor.shape, generator=torch.Generator().manual_seed(1)))
    return pool


@pytest.fixture(autouse=True)
def no_segment_stays() -> Iterator[None]:
    yield
    assert segments() == []
