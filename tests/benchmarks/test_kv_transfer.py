"""The transfer benchmark measures both transports."""

from __future__ import annotations

import pytest

from benchmarks import kv_transfer
from benchmarks.transfer.shape import BLOCK_BYTES, payloads


def test_payloads_grow_from_one_block_to_the_largest() -> None:
    assert list(payloads(1)) == [1]
    assert list(payloads(400)) == [1, 4, 16, 64, 341, 400]
    assert [round(count * BLOCK_BYTES / 2**20) for count in payloads(5461)][-4:] == [12, 64, 256, 1024]


@pytest.mark.cluster
async def test_both_transports_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_transfer, "_LATENCY_REPEATS", 3)
    monkeypatch.setattr(kv_transfer, "_WARM_REPEATS", 1)
    latencies, bandwidths = await kv_transfer.run(["shm", "grpc"], 5, 1, checksums=True)
    assert [(m.transport, m.count) for m in latencies] == [("shm", 3), ("grpc", 3)]
    assert all(0 < m.ready_p50_us <= m.ready_p90_us for m in latencies)
    assert [(m.transport, m.num_blocks) for m in bandwidths] == [
        (transport, count) for transport in ("shm", "grpc") for count in (1, 4, 5)
    ]
