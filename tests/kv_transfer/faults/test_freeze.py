"""One end is stopped for longer than its lease lasts, and goes on: what it does then harms nobody."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict

import pytest

from core.clock import ManualClock
from kv_transfer import sender as sender_module
from kv_transfer.errors import TransferError
from kv_transfer.layout import PayloadKind
from kv_transfer.leases import LeaseState
from kv_transfer.pool import Pool
from tests.kv_transfer.child import digest
from tests.kv_transfer.children import Start, receiving
from tests.kv_transfer.faults.survivors import BLOCKS, assert_sent, send
from tests.kv_transfer.loopback import CLUSTER, HERE, KEY, MakeSender, Receive, until

pytestmark = pytest.mark.cluster

LEASE_ENDED = {"FAILED_PRECONDITION", "REFUSED"}


@pytest.mark.parametrize("transport", ["shm", "collective", "grpc"])
async def test_a_sender_that_was_frozen_half_way(
    transport: str, start: Start, receive: Receive, sender_with: MakeSender, source: Pool
) -> None:
    """Its lease ends, and what it writes when it goes on lands in no memory that others have."""
    clock = ManualClock()  # of the receiver: its leases last until the sender surely is frozen
    here = await receive(kv_blocks=10, clock=clock)
    where = json.dumps(asdict(here.address))
    child = await start("send", where, transports=[transport], freeze_in=transport)
    assert await child.hear() == {"opened": 1}
    await child.until_stopped()
    [lease] = here.receiver.leases
    for _ in range(3):  # the lease, and twice the grace period
        clock.advance(60.0)
        here.receiver.leases.sweep()
    assert "nothing was heard of it" in lease.reason
    assert lease.state is (LeaseState.EXPIRED if transport == "shm" else LeaseState.FREED)

    here.host.known.add(("other", 0))
    await send(sender_with("grpc"), here.address, source, ("other", 0))
    [(_, blocks, _, _)] = here.host.kv
    rest = here.kv.blocks.allocate(here.kv.blocks.num_free)
    here.kv.tensor[:, rest] = 7
    before = here.kv.tensor.clone()
    child.go_on()
    [cause] = (await child.ask("commit"))["causes"]
    assert cause in LEASE_ENDED
    await until(lambda: not list(here.receiver.leases))

    theirs = [block for block in range(10) if block not in {*blocks, *rest}]
    assert len(theirs) == (5 if transport == "shm" else 0)
    assert here.kv.tensor[1, theirs].any() == (transport == "shm")  # after the first plane it was stopped
    assert not before[1, theirs].any()
    before[:, theirs] = here.kv.tensor[:, theirs]
    assert here.kv.tensor.equal(before)
    here.kv.blocks.release([*blocks, *rest])
    here.assert_nothing_is_held()
    await child.finish()


async def test_a_receiver_that_was_frozen_half_way(
    start: Start, sender_with: MakeSender, source: Pool
) -> None:
    """The senders give up by their leases' end, the receiver by its own, when it goes on."""
    child, address = await receiving(start, CLUSTER, lease_s=3.0, grace_s=1.0, checksums=True)
    senders = {transport: sender_with(transport, call_timeout_s=2.0) for transport in HERE}
    transfers = []
    for attempt, sender in enumerate(senders.values()):
        outgoing = await sender.open(address, (KEY[0], attempt), PayloadKind.KV, 0, 20, source)
        outgoing.push(0, 20, range(3), BLOCKS)
        transfers.append(outgoing)
    await child.stop()
    await until(lambda: all(outgoing.error for outgoing in transfers))
    for outgoing in transfers:
        outgoing.push(0, 20, range(3, 6), BLOCKS)
        with pytest.raises(TransferError) as caught:
            await outgoing.commit(20)
        assert caught.value.cause == "DEADLINE_EXCEEDED"
    for sender in senders.values():
        sender.check_idle()
    child.go_on()
    async with asyncio.timeout(30):
        while (await child.ask("count"))["free"] != 32:
            await asyncio.sleep(0.05)
    for sender in senders.values():
        await send(sender, address, source, KEY)
        assert (await child.hear())["digest"] == digest(source, list(BLOCKS), 20)
    await child.finish()


async def test_a_frozen_peer_holds_up_no_others_lease(
    start: Start,
    receive: Receive,
    sender_with: MakeSender,
    source: Pool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sender_module, "HEARTBEAT_INTERVAL_S", 0.01)
    clock = ManualClock()
    child, address = await receiving(start, CLUSTER)
    here = await receive(clock=clock, lease_s=30.0)
    sender = sender_with("grpc", clock=clock, call_timeout_s=100.0)
    frozen = await sender.open(address, KEY, PayloadKind.KV, 0, 20, source)
    lasting = await sender.open(here.address, KEY, PayloadKind.KV, 0, 20, source)
    await child.stop()
    [lease] = here.receiver.leases
    for _ in range(3):
        clock.advance(20.0)
        await until(lambda: lease.expires_at_s == clock.now_s() + 30.0)
    lasting.push(0, 20, range(6), BLOCKS)
    await lasting.commit(20)
    child.go_on()
    await frozen.abort("done")
    assert_sent(here, source)
