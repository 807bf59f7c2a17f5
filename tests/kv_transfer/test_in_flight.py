"""A sender keeps so many transfers open per peer and kind; the others wait their turn."""

from __future__ import annotations

import asyncio

import pytest
import torch

from kv_transfer.errors import TransferError
from kv_transfer.layout import PayloadKind
from kv_transfer.pool import Pool
from kv_transfer.sender import Outgoing, Sender
from tests.kv_transfer.loopback import KEY, MakeSender, Receive, Receiving, until


def opening(sender: Sender, peer: Receiving, source: Pool, attempt: int) -> asyncio.Task[Outgoing]:
    key = KEY[0], attempt
    peer.host.known.add(key)
    return asyncio.create_task(sender.open(peer.address, key, PayloadKind.KV, 0, 4, source))


def num_waiting(sender: Sender) -> int:
    return sender.stats.of("receiver", "").waiting


async def test_what_is_over_the_bound_waits_in_order(
    receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer, sender = await receive(), sender_with(max_in_flight=2)
    opened = [await opening(sender, peer, source, attempt) for attempt in range(2)]
    waiting = [opening(sender, peer, source, attempt) for attempt in (2, 3)]
    await until(lambda: num_waiting(sender) == 2)
    assert len(peer.host.expected) == 2
    opened[0].push(0, 4, range(6), [1])
    await opened[0].commit(4)
    opened.append(await waiting[0])
    assert not waiting[1].done()
    await opened[1].abort("cancelled")
    opened.append(await waiting[1])
    assert num_waiting(sender) == 0
    for outgoing in opened:
        await outgoing.abort("done")


async def test_embeddings_and_other_peers_do_not_wait_for_kv(
    receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer, other = await receive(), await receive(instance_id="other")
    sender = sender_with(max_in_flight=1)
    first = await opening(sender, peer, source, 0)
    waiting = opening(sender, peer, source, 1)
    await until(lambda: num_waiting(sender) == 1)
    await sender.send_embedding(peer.address, KEY, 0, torch.zeros(3, 24, dtype=torch.bfloat16))
    await (await opening(sender, other, source, 0)).abort("done")
    assert not waiting.done()
    await first.abort("done")
    await (await waiting).abort("done")


async def test_a_cancelled_waiter_leaves_no_trace(
    receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer, sender = await receive(), sender_with(max_in_flight=1)
    first = await opening(sender, peer, source, 0)
    waiting = opening(sender, peer, source, 1)
    await until(lambda: num_waiting(sender) == 1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await first.abort("done")
    assert num_waiting(sender) == 0
    sender.check_idle()


async def test_waiting_has_an_end(receive: Receive, sender_with: MakeSender, source: Pool) -> None:
    peer, sender = await receive(), sender_with(max_in_flight=1, open_timeout_s=0.2)
    first = await opening(sender, peer, source, 0)
    with pytest.raises(TransferError, match="1 transfers to receiver were open") as caught:
        await opening(sender, peer, source, 1)
    assert caught.value.cause == "BUSY"
    assert sender.stats.of("receiver", "").failures == {"BUSY": 1}
    await first.abort("done")


async def test_a_refused_transfer_gives_its_turn_back(
    receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer, sender = await receive(), sender_with(max_in_flight=1)
    with pytest.raises(TransferError, match="the whole pool holds"):
        await sender.open(peer.address, KEY, PayloadKind.KV, 0, 100, source)
    sender.check_idle()
    await (await opening(sender, peer, source, 0)).abort("done")
