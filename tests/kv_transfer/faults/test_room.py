"""A receiver without enough blocks refuses with the reason or lets wait; nothing is lost."""

from __future__ import annotations

import asyncio

import pytest

from kv_transfer.errors import TransferError
from kv_transfer.layout import PayloadKind
from kv_transfer.pool import Pool
from tests.kv_transfer.child import digest
from tests.kv_transfer.children import Start, receiving
from tests.kv_transfer.faults.survivors import BLOCKS, assert_sent, send
from tests.kv_transfer.loopback import CLUSTER, HERE, KEY, MakeSender, Receive, until


@pytest.mark.parametrize("transport", HERE)
async def test_what_can_never_fit_is_refused(
    transport: str, receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive(kv_blocks=4)
    sender = sender_with(transport)
    with pytest.raises(TransferError, match="num_tokens: 20, the whole pool holds 16") as caught:
        await send(sender, peer.address, source, KEY)
    assert caught.value.cause == "RESOURCE_EXHAUSTED"
    assert sender.stats.of("receiver", "").failures == {"RESOURCE_EXHAUSTED": 1}
    sender.check_idle()
    peer.assert_nothing_is_held()


@pytest.mark.parametrize("transport", HERE)
async def test_one_that_waits_too_long_takes_nothing_from_the_next(
    transport: str, receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    peer = await receive(kv_blocks=5, checksums=True)
    held = peer.kv.blocks.allocate(1)
    with pytest.raises(TransferError) as caught:
        await send(sender_with(transport, open_timeout_s=0.1), peer.address, source, KEY)
    assert caught.value.cause == "DEADLINE_EXCEEDED"
    room = peer.receiver.rooms[PayloadKind.KV]
    await until(lambda: not room.num_waiting)
    sending = asyncio.create_task(send(sender_with(transport), peer.address, source, KEY))
    await until(lambda: room.num_waiting)
    peer.kv.blocks.release(held)
    await sending
    assert_sent(peer, source)


@pytest.mark.cluster
async def test_more_than_fit_at_once_come_one_after_the_other(
    start: Start, sender_with: MakeSender, source: Pool
) -> None:
    child, address = await receiving(start, CLUSTER, num_blocks=7, checksums=True)
    senders = [sender_with(transport) for transport in HERE]
    await asyncio.gather(
        *(
            send(sender, address, source, (transport, attempt))
            for transport, sender in zip(HERE, senders, strict=True)
            for attempt in range(4)
        )
    )
    heard = [await child.hear() for _ in range(4 * len(HERE))]
    assert {each["digest"] for each in heard} == {digest(source, list(BLOCKS), 20)}
    assert [sender.counters()[0].committed for sender in senders] == [4] * len(HERE)
    assert await child.finish() == {"free": 7}
