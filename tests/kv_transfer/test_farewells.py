"""What a peer did not hear is said again: nobody writes into its blocks any more."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from core.clock import ManualClock
from elasticmm.v1 import transfer_pb2
from kv_transfer import sender as sender_module
from kv_transfer.farewells import MOST_KEPT, WORTH_SAYING_S, Farewells
from kv_transfer.layout import PayloadKind
from kv_transfer.pool import Pool
from kv_transfer.servicer import TransferServicer
from kv_transfer.transports.base import PeerAddress
from tests.kv_transfer.loopback import KEY, MakeSender, Receive, until

PEER = PeerAddress("d-0", "127.0.0.1:1", "here", 1)


async def test_a_peer_that_stood_still_is_told_again(
    receive: Receive, sender_with: MakeSender, source: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, "HEARTBEAT_INTERVAL_S", 0.01)
    monkeypatch.setattr(sender_module, "ABORT_TIMEOUT_S", 0.05)
    peer, goes_on, check = await receive(), asyncio.Event(), TransferServicer._check_token
    outgoing = await sender_with("shm").open(peer.address, KEY, PayloadKind.KV, 0, 4, source)

    async def stand_still(servicer: TransferServicer, context: Any) -> None:
        await goes_on.wait()
        await check(servicer, context)

    monkeypatch.setattr(TransferServicer, "_check_token", stand_still)
    await outgoing.abort("done")
    peer.receiver.release_request(KEY)
    assert peer.receiver.leases.num_quarantined_blocks == 1
    goes_on.set()
    await until(lambda: not list(peer.receiver.leases))
    peer.assert_nothing_is_held()


def test_it_is_not_said_for_ever() -> None:
    clock = ManualClock()
    farewells = Farewells(clock)
    farewell = farewells.new(PEER, transfer_pb2.AbortRequest(lease_id=5))
    farewells.keep(farewell)
    assert farewells.take() == [farewell]
    assert len(farewells) == 0
    clock.advance(WORTH_SAYING_S)
    farewells.keep(farewell)
    assert len(farewells) == 0


def test_a_peer_that_is_gone_is_not_told() -> None:
    farewells = Farewells(ManualClock())
    farewells.keep(farewells.new(PEER, transfer_pb2.AbortRequest(lease_id=5)))
    farewells.forget("another")
    assert len(farewells) == 1
    farewells.forget(PEER.instance_id)
    assert len(farewells) == 0


def test_the_newest_are_kept() -> None:
    farewells = Farewells(ManualClock())
    for lease_id in range(1, MOST_KEPT + 3):
        farewells.keep(farewells.new(PEER, transfer_pb2.AbortRequest(lease_id=lease_id)))
    assert [each.request.lease_id for each in farewells.take()] == list(range(3, MOST_KEPT + 3))
