"""Transfers between real processes."""

from __future__ import annotations

import pytest
import torch

from kv_transfer.layout import PayloadKind
from kv_transfer.pool import Pool
from kv_transfer.sender import PeerAddress
from tests.kv_transfer.child import digest
from tests.kv_transfer.children import Child, Start, receiving
from tests.kv_transfer.loopback import CLUSTER, HERE, KV, MakeSender

pytestmark = pytest.mark.cluster


async def test_bytes_arrive_in_another_process(
    peer: tuple[Child, PeerAddress], sender_with: MakeSender, source: Pool
) -> None:
    child, address = peer
    for transport in HERE:
        sender = sender_with(transport)
        for attempt, blocks in enumerate(([3, 9, 10, 0, 7], [11, 2, 1, 5, 6])):
            outgoing = await sender.open(address, ("req", attempt), PayloadKind.KV, 0, 23, source)
            assert outgoing.transport == transport
            for first, count in ((0, 9), (9, 14)):
                for layer in range(3):
                    outgoing.push(first, count, range(2 * layer, 2 * layer + 2), blocks)
            await outgoing.commit(23, (1, 2))
            assert await child.hear() == {"digest": digest(source, blocks, 23), "outputs": [1, 2]}
    assert await child.finish() == {"free": 32}


@pytest.mark.gpu
@pytest.mark.parametrize("num_devices", [1, 2])
async def test_collective_between_devices(num_devices: int, start: Start, sender_with: MakeSender) -> None:
    """NCCL refuses two ranks on one device: then the next transport is taken."""
    if torch.cuda.device_count() < num_devices:
        pytest.skip(f"needs {num_devices} CUDA devices")
    child, address = await receiving(start, CLUSTER, device=f"cuda:{num_devices - 1}")
    source = Pool(KV, 16, device="cuda:0")
    source.tensor.copy_(torch.randn(source.tensor.shape))
    for attempt, blocks in enumerate(([3, 9, 10, 0, 7, 8], [11, 2, 1, 5, 6, 15])):
        sender = sender_with("collective", "grpc")
        outgoing = await sender.open(address, ("req", attempt), PayloadKind.KV, 0, 23, source)
        assert outgoing.transport == ("collective" if num_devices == 2 else "grpc")
        for layer in range(3):
            outgoing.push(0, 23, range(2 * layer, 2 * layer + 2), blocks)
        await outgoing.commit(23)
        assert await child.hear() == {"digest": digest(source, blocks, 23), "outputs": []}
    assert await child.finish() == {"free": 32}
