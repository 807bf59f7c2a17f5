"""One end of a transfer in a process of its own, in one of ROLES, as tests.kv_transfer.children starts it.

Speaks JSON, one object per line; hears one word per line, an empty line ends it. A receiver (WHERE: its
cluster) says where it is, then what it was handed (SHA-256 over all planes). A sender (WHERE: the receiver's
address) opens one transfer over each of its transports and pushes half of the planes. A holder (WHERE: its
cluster) says where it is, and of each prefix that it is asked for it pushes half of the planes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import grpc

from core.ids import host_id, new_epoch
from kv_transfer.channels import SERVER_OPTIONS
from kv_transfer.errors import TransferError
from kv_transfer.layout import PayloadKind
from kv_transfer.leases import Key
from kv_transfer.outgoing import Outgoing
from kv_transfer.pool import Pool
from kv_transfer.prefixes import PrefixRequest, PushedPrefix
from kv_transfer.receiver import TransferReceiver
from kv_transfer.segment import SegmentOwner
from kv_transfer.sender import PeerAddress, Sender
from kv_transfer.servicer import add_transfer_service
from kv_transfer.transports import shm
from tests.kv_transfer.freezing import FREEZE
from tests.kv_transfer.loopback import FINGERPRINT, HERE, KEY, KV, TOKEN


def say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


async def heard() -> AsyncIterator[str]:
    while word := (await asyncio.to_thread(sys.stdin.readline)).strip():
        yield word


def digest(pool: Pool, blocks: list[int], num_tokens: int) -> str:
    """Of the tokens of all planes, whatever blocks they are in."""
    planes = (pool.read_tokens(blocks, num_tokens, plane=plane) for plane in range(pool.layout.num_planes))
    return hashlib.sha256(b"".join(plane.cpu().numpy().tobytes() for plane in planes)).hexdigest()


def num_threads() -> int:
    """Without those of asyncio's pool, which are made as they are needed and kept."""
    return sum(not thread.name.startswith("asyncio") for thread in threading.enumerate())


def num_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


class DigestHost:
    """Knows every request. With `is_quiet` it says what it was handed when it is asked."""

    def __init__(self, pool: Pool, *, is_quiet: bool) -> None:
        self.pool = pool
        self.is_quiet = is_quiet
        self.handed: dict[str, str] = {}

    async def expect(self, key: Key, kind: PayloadKind, item_index: int | None, num_tokens: int) -> None:
        pass

    def on_kv(self, key: Key, block_ids: list[int], num_tokens: int, outputs: tuple[int, ...]) -> None:
        arrived = digest(self.pool, block_ids, num_tokens)
        if self.is_quiet:
            self.handed[f"{key[0]} {key[1]}"] = arrived
        else:
            say(digest=arrived, outputs=outputs)
        self.pool.blocks.release(block_ids)

    def on_embedding(self, key: Key, item_index: int, block_ids: list[int], num_tokens: int) -> None:
        raise NotImplementedError


def counts(receiver: TransferReceiver, pool: Pool) -> dict[str, int]:
    """Raises AssertionError if leases and blocks disagree."""
    receiver.check_integrity()
    return {
        "free": pool.blocks.num_free,
        "leases": len(list(receiver.leases)),
        "threads": num_threads(),
        "fds": num_fds(),
    }


async def receive(
    cluster: str,
    device: str = "cpu",
    port: int = 0,
    num_blocks: int = 32,
    is_quiet: bool = False,
    **options: Any,
) -> None:
    epoch = new_epoch()
    pool = Pool(KV, num_blocks, device=device, owner=SegmentOwner(cluster, "child", epoch))
    host = DigestHost(pool, is_quiet=is_quiet)
    receiver = TransferReceiver({PayloadKind.KV: pool}, host, epoch=epoch, host_id=host_id(), **options)
    await receiver.start()
    server = grpc.aio.server(options=SERVER_OPTIONS)
    add_transfer_service(server, receiver, TOKEN)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    say(instance_id="child", endpoint=f"127.0.0.1:{port}", host_id=host_id(), epoch=epoch)
    async for word in heard():
        if word == "count":
            say(**counts(receiver, pool))
        elif word == "handed":
            say(**host.handed)
        else:  # "end REQUEST ATTEMPT"
            _, request_id, attempt = word.split()
            receiver.release_request((request_id, int(attempt)), "cancelled by the client")
    await server.stop(None)
    free = counts(receiver, pool)["free"]
    await receiver.close()
    pool.close()
    say(free=free)


async def send(address: str, transports: tuple[str, ...] = HERE, freeze_in: str = "") -> None:
    """With `freeze_in` it stops itself in the middle of that step of its first transfer."""
    peer = PeerAddress(**json.loads(address))
    source = Pool(KV, 16)
    source.tensor.fill_(1)
    shm.LITTLE_BYTES = 0  # what is pushed leaves at once
    senders = {
        name: Sender(
            model_fingerprint=FINGERPRINT,
            instance_id="child",
            host_id=host_id(),
            token=TOKEN,
            transports=[name],
        )
        for name in transports
    }
    transfers = [
        await sender.open(peer, (KEY[0], attempt), PayloadKind.KV, 0, 20, source)
        for attempt, sender in enumerate(senders.values())
    ]
    say(opened=len(transfers))
    if freeze_in:
        FREEZE[freeze_in]()
    for outgoing in transfers:
        outgoing.push(0, 20, range(3), range(5))
    async for _ in heard():
        say(causes=await asyncio.gather(*(commit_rest(outgoing) for outgoing in transfers)))
    await asyncio.gather(*(sender.close() for sender in senders.values()))
    for sender in senders.values():
        sender.check_idle()
    say(threads=num_threads())


class HalfHost:
    """Pushes half of the planes of whatever prefix it is asked for, says so, and leaves it at that."""

    def __init__(self) -> None:
        self.source = Pool(KV, 16)
        self.source.tensor.fill_(1)
        self.senders: list[Sender] = []

    async def push_prefix(self, request: PrefixRequest) -> PushedPrefix:
        name = HERE[request.key[1]]
        sender = Sender(
            model_fingerprint=FINGERPRINT,
            instance_id="child",
            host_id=host_id(),
            token=TOKEN,
            transports=[name],
        )
        self.senders.append(sender)
        outgoing = await sender.open(
            request.asker, request.key, PayloadKind.KV, 0, 20, self.source, is_prefix=True
        )
        outgoing.push(0, 20, range(3), range(5))
        say(pushes=outgoing.transport)
        await asyncio.Event().wait()
        return PushedPrefix(20, name)

    def expect_prefix(self, key: Key, num_tokens: int) -> None:
        raise NotImplementedError

    def on_prefix(self, key: Key, block_ids: list[int], num_tokens: int) -> None:
        raise NotImplementedError


async def hold(cluster: str) -> None:
    """Until it is killed."""
    shm.LITTLE_BYTES = 0  # what is pushed leaves at once
    epoch = new_epoch()
    pool = Pool(KV, 1, owner=SegmentOwner(cluster, "child", epoch))
    receiver = TransferReceiver(
        {PayloadKind.KV: pool}, DigestHost(pool, is_quiet=True), epoch=epoch, host_id=host_id()
    )
    receiver.serve_prefixes(HalfHost())
    await receiver.start()
    server = grpc.aio.server(options=SERVER_OPTIONS)
    add_transfer_service(server, receiver, TOKEN)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    say(instance_id="child", endpoint=f"127.0.0.1:{port}", host_id=host_id(), epoch=epoch)
    await server.wait_for_termination()


async def commit_rest(outgoing: Outgoing) -> str:
    """The cause why that failed; empty if it did not."""
    outgoing.push(0, 20, range(3, 6), range(5))
    try:
        await outgoing.commit(20)
    except TransferError as error:
        return error.cause
    return ""


ROLES = {"receive": receive, "send": send, "hold": hold}
