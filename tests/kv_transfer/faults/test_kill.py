"""One end is killed when half of the planes are written: the other is whole, and can go on."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict

import pytest

from core.ids import host_id
from kv_transfer.errors import TransferError
from kv_transfer.layout import PayloadKind
from kv_transfer.pool import Pool
from kv_transfer.prefixes import PrefixRequest
from kv_transfer.segment import reap_segments
from kv_transfer.sender import PeerAddress
from tests.kv_transfer.children import Child, Start
from tests.kv_transfer.faults.survivors import assert_senders_are_whole, planes_written, send, threads
from tests.kv_transfer.loopback import CLUSTER, FINGERPRINT, HERE, KEY, MakeSender, Receive, segments, until
from tests.kv_transfer.prefixes import PULL, AskingHost
from tests.kv_transfer.raw import Raw

pytestmark = pytest.mark.cluster

CAUSES = {"UNAVAILABLE", "CANCELLED", "PEER_LOST", "NIXL"}


async def test_a_killed_sender(start: Start, receive: Receive, sender_with: MakeSender, source: Pool) -> None:
    here = await receive(kv_blocks=32, checksums=True)
    here.host.known.update((KEY[0], attempt) for attempt in range(len(HERE)))
    child = await start("send", json.dumps(asdict(here.address)), transports=HERE)
    assert await child.hear() == {"opened": len(HERE)}
    leases = list(here.receiver.leases)
    await until(lambda: all(planes_written(here.kv, lease) == [0, 1, 2] for lease in leases))
    assert here.kv.blocks.num_free == 32 - 5 * len(HERE)
    await child.kill()
    await until(lambda: not list(here.receiver.leases))
    here.assert_nothing_is_held()
    assert here.host.kv == []
    await until(lambda: not threads("kv-collective-receive"))
    for transport in HERE:
        await send(sender_with(transport), here.address, source, KEY)
    assert len(here.host.kv) == len(HERE)


async def test_a_killed_receiver(
    peer: tuple[Child, PeerAddress], sender_with: MakeSender, source: Pool
) -> None:
    child, address = peer
    senders = [sender_with(transport) for transport in HERE]
    transfers = [
        await sender.open(address, (KEY[0], attempt), PayloadKind.KV, 0, 20, source)
        for attempt, sender in enumerate(senders)
    ]
    for outgoing in transfers:
        outgoing.push(0, 20, range(3), range(4))
    await child.kill()
    for outgoing in transfers:
        outgoing.push(0, 20, range(3, 6), range(4))
        with pytest.raises(TransferError) as caught:
            await outgoing.commit(20)
        assert caught.value.cause in CAUSES
    await assert_senders_are_whole(senders)
    assert [path.is_socket() for path in segments()] == [True, False]  # ...-commit-..., ...-kv-...
    assert len(reap_segments(CLUSTER)) == 2
    assert segments() == []


async def test_a_killed_holder_of_a_prefix(start: Start, receive: Receive, sender_with: MakeSender) -> None:
    here = await receive(kv_blocks=32, checksums=True)
    pulls = [(PULL[0], attempt) for attempt in range(len(HERE))]
    asking = AskingHost(known=set(pulls))
    here.receiver.serve_prefixes(asking)
    child = await start("hold", CLUSTER)
    holder = PeerAddress(**await child.hear())
    caller = sender_with("grpc", instance_id="receiver")
    pulling = []
    for pull in pulls:
        request = PrefixRequest(
            key=pull,
            block_keys=(bytes(32),) * 5,
            first_token=0,
            block_tokens=4,
            model_fingerprint=FINGERPRINT,
            asker=here.address,
            holder_epoch=holder.epoch,
        )
        pulling.append(asyncio.create_task(caller.pull_prefix(holder, request, 60.0)))
    assert {(await child.hear())["pushes"] for _ in HERE} == set(HERE)
    leases = list(here.receiver.leases)
    await until(lambda: all(planes_written(here.kv, lease) == [0, 1, 2] for lease in leases))
    await child.kill()
    for each in pulling:
        with pytest.raises(TransferError, match="pull refused: UNAVAILABLE"):
            await each
    await until(lambda: not list(here.receiver.leases))
    assert asking.came == []
    here.assert_nothing_is_held()


async def test_a_sender_that_is_gone_when_it_is_granted_leaves_nothing(receive: Receive) -> None:
    """Its question waited while this end stood still; nobody is left to be told the answer."""
    here = await receive()
    here.host.known.add((KEY[0], 1))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE
    )
    fields = {"sender_pid": process.pid, "sender_host_id": host_id(), "transports": ["shm"]}
    async with Raw(here) as raw:
        await raw.abort((await raw.open(**fields)).lease_id)
        process.kill()
        await process.wait()
        await raw.open(attempt=1, **fields)
    here.receiver.release_request((KEY[0], 1))
    here.receiver.leases.sweep()
    here.assert_nothing_is_held()
