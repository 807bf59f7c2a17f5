"""One end in a process of its own, as tests.kv_transfer.child: `produce` for a receiver, or `read`."""

from __future__ import annotations

import hashlib
import json

import grpc
import torch

from core.ids import host_id, new_epoch
from kv_transfer.layout import PayloadKind
from kv_transfer.pool import Pool
from kv_transfer.receiver import TransferReceiver
from kv_transfer.sender import PeerAddress, Sender
from kv_transfer.servicer import add_transfer_service
from tests.kv_transfer.child import heard, say
from tests.kv_transfer.in_place.lending import Producer, Reading, ReadingHost
from tests.kv_transfer.loopback import EMBEDDING, FINGERPRINT, TOKEN


def digest(embedding: torch.Tensor) -> str:
    return hashlib.sha256(embedding.view(torch.int16).numpy().tobytes()).hexdigest()


async def produce(address: str, cluster: str) -> None:
    """Lends one item, and says how many blocks are free whenever it hears a word."""
    sender = Sender(model_fingerprint=FINGERPRINT, instance_id="child", host_id=host_id(), token=TOKEN)
    producer = Producer(sender, cluster)
    is_taken = await producer.lend(PeerAddress(**json.loads(address)), producer.make())
    say(is_taken=is_taken, free=producer.num_free)
    async for _ in heard():
        say(free=producer.num_free)
    producer.close()
    await sender.close()
    say(done=True)


class Host(ReadingHost):
    """Says what it reads, whenever it hears a word again; the word "writes" makes it write there."""

    def on_embedding_in_place(self, *reading: object) -> None:  # type: ignore[override]
        self.read.append(Reading(*reading))  # type: ignore[arg-type]
        say(digest=digest(self.read[-1].embedding))


async def read(_: str) -> None:
    epoch = new_epoch()
    host = Host()
    pools = {PayloadKind.EMBEDDING: Pool(EMBEDDING, 8)}
    receiver = TransferReceiver(pools, host, epoch=epoch, host_id=host_id(), transports=["grpc"])
    await receiver.start()
    server = grpc.aio.server()
    add_transfer_service(server, receiver, TOKEN)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    say(instance_id="reader", endpoint=f"127.0.0.1:{port}", host_id=host_id(), epoch=epoch)
    async for word in heard():
        if word == "write":
            host.read[0].embedding[0] = 1
        say(digest=digest(host.read[0].embedding))
    for each in host.read:
        each.let_go()
    await server.stop(None)
    await receiver.close()
    say(done=True)


ROLES = {"produce": produce, "read": read}
