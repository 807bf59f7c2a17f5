"""Transfers between real processes, and what is left when one of them is killed."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from typing import Any

import pytest
import torch

from core.clock import ManualClock
from kv_transfer import sender as sender_module
from kv_transfer.errors import TransferError
from kv_transfer.layout import PayloadKind
from kv_transfer.pool import Pool
from kv_transfer.segment import reap_segments
from kv_transfer.sender import PeerAddress
from tests.kv_transfer.child import digest
from tests.kv_transfer.loopback import CLUSTER, HERE, KEY, KV, MakeSender, Receive, segments, until

pytestmark = pytest.mark.cluster


class Child:
    """A process of tests.kv_transfer.child."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            heard: dict[str, Any] = json.loads(await self.process.stdout.readline())
        return heard

    async def finish(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        last = await self.hear()
        assert await self.process.wait() == 0
        return last

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


Start = Callable[..., Awaitable[Child]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    children: list[Child] = []

    async def run(*arguments: str) -> Child:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.kv_transfer.child", *arguments, stdin=pipe, stdout=pipe
        )
        children.append(Child(process))
        return children[-1]

    yield run
    for child in children:
        if child.process.returncode is None:
            await child.kill()
    reap_segments(CLUSTER)


@pytest.fixture
async def peer(start: Start) -> tuple[Child, PeerAddress]:
    """A receiving process."""
    child = await start("receive", CLUSTER)
    return child, PeerAddress(**await child.hear())


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


async def test_a_killed_sender_leaves_nothing(start: Start, receive: Receive) -> None:
    here = await receive(kv_blocks=32)
    here.host.known.update((KEY[0], attempt) for attempt in range(len(HERE)))
    child = await start("send", json.dumps(asdict(here.address)))
    assert await child.hear() == {"pushed": 2}
    here.receiver.leases.sweep()
    assert here.kv.blocks.num_free == 32 - 5 * len(HERE)
    pairs = here.receiver._acceptors["collective"]._pairs
    assert len(pairs) == 1
    await child.kill()
    here.receiver.leases.sweep()
    await until(lambda: not pairs)
    await until(lambda: not list(here.receiver.leases))
    here.assert_nothing_is_held()
    assert here.host.kv == []


async def test_a_killed_receiver_is_an_error_here(
    peer: tuple[Child, PeerAddress], sender_with: MakeSender, source: Pool
) -> None:
    child, address = peer
    senders = [sender_with(transport) for transport in HERE]
    outgoing = [
        await sender.open(address, (KEY[0], attempt), PayloadKind.KV, 0, 20, source)
        for attempt, sender in enumerate(senders)
    ]
    for each in outgoing:
        each.push(0, 20, range(4), range(4))
    await child.kill()
    for each in outgoing:
        each.push(0, 20, range(4, 6), range(4))
        with pytest.raises(TransferError):
            await each.commit(20)
    assert [sender.stats.in_flight for sender in senders] == [0] * len(HERE)
    assert [path.is_socket() for path in segments()] == [True, False]  # ...-commit-..., ...-kv-...
    assert len(reap_segments(CLUSTER)) == 2
    assert segments() == []


async def test_a_frozen_receiver_is_given_up(
    peer: tuple[Child, PeerAddress],
    sender_with: MakeSender,
    source: Pool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sender_module, "HEARTBEAT_INTERVAL_S", 0.01)
    clock = ManualClock()
    child, address = peer
    senders = [sender_with(transport, clock=clock, call_timeout_s=0.1) for transport in HERE]
    commits = []
    for attempt, sender in enumerate(senders):
        outgoing = await sender.open(address, (KEY[0], attempt), PayloadKind.KV, 0, 20, source)
        outgoing.push(0, 20, range(6), range(4))
        commits.append(outgoing.commit(20))
    child.process.send_signal(signal.SIGSTOP)
    committing = asyncio.gather(*commits, return_exceptions=True)
    await asyncio.sleep(0.05)
    clock.advance(31)
    errors = await committing
    assert [getattr(error, "cause", None) for error in errors] == ["DEADLINE_EXCEEDED"] * len(HERE)
    assert [sender.stats.in_flight for sender in senders] == [0] * len(HERE)


async def test_a_collective_pair_with_a_stopped_receiver_is_made_again(
    peer: tuple[Child, PeerAddress], sender_with: MakeSender, source: Pool
) -> None:
    child, address = peer
    sender = sender_with("collective")
    sender._transports["collective"]._timeout_s = 2.0
    outgoing = await sender.open(address, KEY, PayloadKind.KV, 0, 20, source)
    child.process.send_signal(signal.SIGSTOP)
    [pair] = sender._transports["collective"]._pairs.values()
    outgoing.push(0, 20, range(6), range(4))
    resuming = asyncio.create_task(resume(child, lambda: pair.is_over))
    with pytest.raises(TransferError) as caught:
        await outgoing.commit(20)
    await resuming
    assert caught.value.cause == "TIMEOUT"
    again = await sender.open(address, ("again", 0), PayloadKind.KV, 0, 20, source)
    again.push(0, 20, range(6), range(4))
    await again.commit(20)
    assert await child.hear() == {"digest": digest(source, [0, 1, 2, 3], 20), "outputs": []}
    assert await child.finish() == {"free": 32}


async def resume(child: Child, condition: Callable[[], object]) -> None:
    await until(condition)
    child.process.send_signal(signal.SIGCONT)


@pytest.mark.gpu
@pytest.mark.parametrize("num_devices", [1, 2])
async def test_collective_between_devices(num_devices: int, start: Start, sender_with: MakeSender) -> None:
    """NCCL refuses two ranks on one device: then the next transport is taken."""
    if torch.cuda.device_count() < num_devices:
        pytest.skip(f"needs {num_devices} CUDA devices")
    child = await start("receive", CLUSTER, f"cuda:{num_devices - 1}")
    address = PeerAddress(**await child.hear())
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
