"""Counters per peer and transport: what they count, and that a snapshot stands still."""

from __future__ import annotations

import pytest

from kv_transfer.errors import TransferError
from kv_transfer.layout import PayloadKind
from kv_transfer.pool import Pool
from kv_transfer.segment import SHM_DIR
from kv_transfer.stats import PairCounters, StatsTable
from tests.kv_transfer.loopback import KEY, MakeSender, Receive, until


def test_a_snapshot_is_sorted_and_stands_still() -> None:
    table = StatsTable()
    table.of("p-1", "shm").committed = 3
    table.of("d-0", "grpc").failures["UNAVAILABLE"] += 2
    taken = table.snapshot()
    table.of("d-0", "grpc").failures["UNAVAILABLE"] += 1
    assert taken == (
        PairCounters("d-0", "grpc", 0, 0, 0, 0, 0.0, {"UNAVAILABLE": 2}),
        PairCounters("p-1", "shm", 3, 0, 0, 0, 0.0, {}),
    )


async def test_a_transfer_is_counted_from_grant_to_end(
    receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    sender = sender_with("grpc")
    assert sender.counters() == ()
    outgoing = await sender.open(peer.address, KEY, PayloadKind.KV, 0, 4, source)
    assert sender.counters() == (PairCounters("receiver", "grpc", 0, 0, 1, 0, 0.0, {}),)
    outgoing.push(0, 4, range(6), [2])
    await outgoing.commit(4)
    aborted = await sender.open(peer.address, KEY, PayloadKind.KV, 0, 4, source)
    await aborted.abort("no more of it")
    [counters] = sender.counters()
    assert (counters.committed, counters.aborted, counters.in_flight) == (1, 1, 0)
    assert (counters.size_bytes, counters.failures) == (4 * 6 * 32, {})
    assert counters.seconds > 0


async def test_a_transport_that_could_not_be_used_is_counted(
    receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive()
    assert peer.kv.segment is not None
    moved = peer.kv.segment.path.rename(SHM_DIR / f"{peer.kv.segment.path.name}.moved")
    sender = sender_with("shm")
    with pytest.raises(TransferError, match="No such file"):
        await sender.open(peer.address, KEY, PayloadKind.KV, 0, 4, source)
    moved.unlink()
    assert sender.counters() == (PairCounters("receiver", "shm", 0, 0, 0, 0, 0.0, {"ATTACH": 1}),)
    await until(lambda: not list(peer.receiver.leases))
