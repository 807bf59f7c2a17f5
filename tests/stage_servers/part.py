"""One whole instance in this process, and what it reported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc

from core.cache.keys import DIGEST_BYTES
from core.ids import host_id
from core.sequence import SequenceSpec
from core.stages import COUPLED, ModalityGroup
from elasticmm.v1 import stage_control_pb2 as pb
from kv_transfer.layout import PayloadKind
from kv_transfer.pool import Pool, embedding_layout, kv_layout
from kv_transfer.receiver import TransferReceiver
from kv_transfer.segment import SegmentOwner
from kv_transfer.sender import PeerAddress, Sender
from kv_transfer.servicer import add_transfer_service
from stage_servers.engine.engine import Engine
from stage_servers.engine.model import Model
from stage_servers.engine.records import EngineConfig
from stage_servers.instance import Instance

TOKEN = "a token for tests"


@dataclass
class Part:
    """One instance, and what it reported."""

    instance: Instance
    engine: Engine
    kv: Pool
    receiver: TransferReceiver
    sender: Sender
    address: PeerAddress
    tokens: dict[tuple[str, int], list[tuple[int, int]]] = field(default_factory=dict)
    migrations: list[pb.MigrationReport] = field(default_factory=list)
    stages: list[pb.StageReport] = field(default_factory=list)
    failures: list[pb.FailureReport] = field(default_factory=list)
    kept: set[bytes] = field(default_factory=set)  # cache keys, as reported
    reported: list[str] = field(default_factory=list)  # kinds in order, "tokens" once in a row

    async def collect(self) -> None:
        while True:
            message = await self.instance.reports.next()
            kind = message.WhichOneof("message") or ""
            if kind == "migration":
                self.migrations.append(message.migration)
            elif kind == "stage":
                self.stages.append(message.stage)
            elif kind == "failure":
                self.failures.append(message.failure)
            elif kind == "cache":
                self.kept |= set(_keys(message.cache.stored))
                self.kept -= set(_keys(message.cache.evicted))
            if not (kind == "step" and self.reported[-1:] == ["step"]):
                self.reported.append(kind)
            for run in message.step.sequences:
                tokens = self.tokens.setdefault((run.request_id, run.attempt), [])
                tokens += enumerate(run.token_ids, run.first_index)

    def num_tokens(self, spec: SequenceSpec) -> int:
        return len(self.tokens.get(spec.key, ()))

    def assert_nothing_is_held(self) -> None:
        self.engine.check_integrity()
        self.receiver.check_integrity()
        assert not list(self.receiver.leases)
        assert self.sender.stats.in_flight == 0

    @property
    def is_free(self) -> bool:
        return self.kv.blocks.num_free == self.kv.num_blocks


def _keys(packed: bytes) -> list[bytes]:
    return [packed[at : at + DIGEST_BYTES] for at in range(0, len(packed), DIGEST_BYTES)]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


@asynccontextmanager
async def running(
    model: Model, name: str, *, kv_blocks: int, epoch: int, cluster: str | None = None
) -> AsyncIterator[Part]:
    """With a cluster its embeddings lie in shared memory."""
    owner = None if cluster is None else SegmentOwner(cluster, name, epoch)
    kv = Pool(
        kv_layout(
            model.fingerprint,
            model.dtype,
            num_layers=model.num_layers,
            num_heads=model.num_kv_heads,
            head_dim=model.head_dim,
            block_tokens=16,
        ),
        kv_blocks,
    )
    layout = embedding_layout(model.fingerprint, model.dtype, width=model.embedding_width)
    embeddings = Pool(layout, 8, owner=owner)
    sender = Sender(
        model_fingerprint=model.fingerprint,
        instance_id=name,
        host_id=host_id(),
        token=TOKEN,
        transports=["grpc"] if cluster is None else ["shm", "grpc"],
    )
    instance = Instance(
        model=model,
        kv=kv,
        embeddings=embeddings,
        sender=sender,
        token=TOKEN,
        roles=COUPLED,
        group=ModalityGroup.SHARED,
        media_workers=1,
    )
    instance.instance_id = name
    receiver = TransferReceiver(
        {PayloadKind.KV: kv, PayloadKind.EMBEDDING: embeddings},
        instance,
        epoch=epoch,
        host_id=host_id(),
        checksums=True,
    )
    engine = Engine(model, kv.tensor, kv.blocks, EngineConfig(), instance)
    await receiver.start()
    instance.start(engine, receiver, max_encode_tokens=64)
    server = grpc.aio.server()
    add_transfer_service(server, receiver, TOKEN)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    part = Part(
        instance, engine, kv, receiver, sender, PeerAddress(name, f"127.0.0.1:{port}", host_id(), epoch)
    )
    collecting = asyncio.create_task(part.collect())
    try:
        yield part
    finally:
        collecting.cancel()
        await instance.stop()
        await sender.close()
        await server.stop(None)
        await receiver.close()
        embeddings.close()
