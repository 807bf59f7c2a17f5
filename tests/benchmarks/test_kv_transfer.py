"""The transfer benchmark measures every transport that is here, through TLS too."""

from __future__ import annotations

import pytest

from benchmarks import kv_transfer
from benchmarks.transfer.shape import BLOCK_BYTES, payloads


def test_payloads_grow_from_one_block_to_the_largest() -> None:
    assert list(payloads(1)) == [1]
    assert list(payloads(400)) == [1, 4, 16, 64, 341, 400]
    assert [round(count * BLOCK_BYTES / 2**20) for count in payloads(5461)][-4:] == [12, 64, 256, 1024]


def test_what_is_here_is_measured_unless_told_otherwise() -> None:
    assert set(kv_transfer.found_here()) >= {"shm", "grpc", "grpc-tls"}
    assert "cuda_ipc" not in kv_transfer.found_here()


@pytest.mark.cluster
async def test_transports_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_transfer, "_LATENCY_REPEATS", 3)
    monkeypatch.setattr(kv_transfer, "_WARM_REPEATS", 1)
    names = ["shm", "grpc", "grpc-tls"]
    latencies, bandwidths = await kv_transfer.run(names, 5, 1, checksums=True)
    assert [(m.transport, m.count) for m in latencies] == [(name, 3) for name in names]
    assert all(0 < m.ready_p50_us <= m.ready_p90_us for m in latencies)
    assert [(m.transport, m.num_blocks) for m in bandwidths] == [
        (name, count) for name in names for count in (1, 4, 5)
    ]
