"""One end of a transfer in a process of its own: `python -m tests.kv_transfer.child receive|send …`.

Speaks JSON, one object per line. A receiver says where it is, then what it was
handed (SHA-256 over all planes). A sender pushes some layers over each transport
and waits to be killed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from typing import Any

import grpc

from core.ids import host_id, new_epoch
from kv_transfer.layout import PayloadKind
from kv_transfer.leases import Key
from kv_transfer.pool import Pool
from kv_transfer.receiver import TransferReceiver
from kv_transfer.segment import SegmentOwner
from kv_transfer.sender import PeerAddress, Sender
from kv_transfer.servicer import add_transfer_service
from tests.kv_transfer.loopback import FINGERPRINT, HERE, KEY, KV, TOKEN


def say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


def digest(pool: Pool, blocks: list[int], num_tokens: int) -> str:
    """Of the tokens of all planes, whatever blocks they are in."""
    planes = (pool.read_tokens(blocks, num_tokens, plane=plane) for plane in range(pool.layout.num_planes))
    return hashlib.sha256(b"".join(plane.cpu().numpy().tobytes() for plane in planes)).hexdigest()


class DigestHost:
    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    async def expect(self, key: Key, kind: PayloadKind, item_index: int | None, num_tokens: int) -> None:
        pass

    def on_kv(self, key: Key, block_ids: list[int], num_tokens: int, outputs: tuple[int, ...]) -> None:
        del key
        say(digest=digest(self.pool, block_ids, num_tokens), outputs=outputs)
        self.pool.blocks.release(block_ids)

    def on_embedding(self, key: Key, item_index: int, block_ids: list[int], num_tokens: int) -> None:
        raise NotImplementedError


async def receive(cluster: str, device: str = "cpu") -> None:
    epoch = new_epoch()
    pool = Pool(KV, 32, device=device, owner=SegmentOwner(cluster, "child", epoch))
    receiver = TransferReceiver({PayloadKind.KV: pool}, DigestHost(pool), epoch=epoch, host_id=host_id())
    await receiver.start()
    server = grpc.aio.server()
    add_transfer_service(server, receiver, TOKEN)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    say(instance_id="child", endpoint=f"127.0.0.1:{port}", host_id=host_id(), epoch=epoch)
    await asyncio.to_thread(sys.stdin.readline)
    await server.stop(None)
    receiver.check_integrity()
    say(free=pool.blocks.num_free)
    await receiver.close()
    pool.close()


async def send(address: str) -> None:
    peer = PeerAddress(**json.loads(address))
    source = Pool(KV, 16)
    source.tensor.fill_(1)
    for attempt, transport in enumerate(HERE):
        sender = Sender(
            model_fingerprint=FINGERPRINT,
            instance_id="child",
            host_id=host_id(),
            token=TOKEN,
            transports=[transport],
        )
        outgoing = await sender.open(peer, (KEY[0], attempt), PayloadKind.KV, 0, 20, source)
        for layer in range(2):
            outgoing.push(0, 20, range(2 * layer, 2 * layer + 2), range(5))
    await asyncio.sleep(0.05)
    say(pushed=2)
    await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run({"receive": receive, "send": send}[sys.argv[1]](*sys.argv[2:]))
