"""An end closes in bounded time, though its peer is frozen in the middle of a payload."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import pytest

from kv_transfer.layout import PayloadKind
from kv_transfer.pool import Pool
from kv_transfer.sender import PeerAddress
from kv_transfer.transports.collective import groups
from tests.kv_transfer.children import Child, Start
from tests.kv_transfer.faults.survivors import BLOCKS, threads
from tests.kv_transfer.loopback import KEY, MakeSender, Receive, until

pytestmark = pytest.mark.cluster
BOUND_S, PAIR_TIMEOUT_S = 30.0, 100.0


@pytest.fixture
def is_waiting(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set once a pair waits for a payload of its peer, or for its peer to take one."""
    entered, wait = threading.Event(), groups._wait

    def noted(work: Any, timeout: timedelta) -> None:
        entered.set()
        wait(work, timeout)

    monkeypatch.setattr(groups, "_wait", noted)
    return entered


async def test_a_sender(
    peer: tuple[Child, PeerAddress], sender_with: MakeSender, source: Pool, is_waiting: threading.Event
) -> None:
    child, address = peer
    sender = sender_with("collective")
    sender._transports["collective"]._timeout_s = PAIR_TIMEOUT_S
    outgoing = await sender.open(address, KEY, PayloadKind.KV, 0, 20, source)
    await child.stop()
    for plane in range(3):  # two are on their way at once
        await until(lambda: not outgoing.transfer.backlog.has_work)
        outgoing.push(0, 20, range(plane, plane + 1), BLOCKS)
    await until(is_waiting.is_set)
    async with asyncio.timeout(BOUND_S):
        await sender.close()
    sender.check_idle()
    assert threads("kv-collective-send")
    await child.kill()
    await until(lambda: not threads("kv-collective-send"))


async def test_a_receiver(start: Start, receive: Receive, is_waiting: threading.Event) -> None:
    here = await receive(kv_blocks=10)
    here.receiver._acceptors["collective"]._timeout_s = PAIR_TIMEOUT_S
    where = json.dumps(asdict(here.address))
    child = await start("send", where, transports=["collective"], freeze_in="collective")
    assert await child.hear() == {"opened": 1}
    await child.until_stopped()
    await until(is_waiting.is_set)
    async with asyncio.timeout(BOUND_S):
        await here.leave()
    here.assert_nothing_is_held()
    assert threads("kv-collective-receive")
    await child.kill()
    await until(lambda: not threads("kv-collective-receive"))
