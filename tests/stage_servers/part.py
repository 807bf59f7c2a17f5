"""One whole instance in this process, and what it reported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc

from core.ids import host_id
from core.sequence import SequenceSpec
from core.stages import COUPLED, ModalityGroup
from elasticmm.v1 import stage_control_pb2 as pb
from kv_transfer.layout import PayloadKind
from kv_transfer.pool import Pool, embedding_layout, kv_layout
from kv_transfer.receiver import TransferReceiver
from kv_transfer.sender import PeerAddress, Sender
from kv_transfer.servicer import add_transfer_service
from stage_servers.cache.kv_cache import KvCache
from stage_servers.cache.settings import CacheSettings
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
    needs: list[pb.NeedReport] = field(default_factory=list)
    kept: set[bytes] = field(default_factory=set)  # keys, as reported
    reported: list[str] = field(default_factory=list)  # kinds in order, "tokens" once in a row

    async def collect(self) -> None:
        while True:
            message = await self.instance.reports.next()
            kind = message.WhichOneof("message") or ""
            self._note(kind, message)
            if not (kind == "step" and self.reported[-1:] == ["step"]):
                self.reported.append(kind)
            for run in message.step.sequences:
                tokens = self.tokens.setdefault((run.request_id, run.attempt), [])
                tokens += enumerate(run.token_ids, run.first_index)

    def _note(self, kind: str, message: pb.StageMessage) -> None:
        if kind == "migration":
            self.migrations.append(message.migration)
        elif kind == "stage":
            self.stages.append(message.stage)
        elif kind == "failure":
            self.failures.append(message.failure)
        elif kind == "need":
            self.needs.append(message.need)
        elif kind == "cache":
            self.kept = (self.kept | _keys(message.cache.stored)) - _keys(message.cache.evicted)

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


def _keys(joined: bytes) -> set[bytes]:
    return {joined[at : at + 32] for at in range(0, len(joined), 32)}


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


@asynccontextmanager
async def running(
    model: Model, name: str, *, kv_blocks: int, epoch: int, cache: CacheSettings | None = None
) -> AsyncIterator[Part]:
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
    embeddings = Pool(embedding_layout(model.fingerprint, model.dtype, width=model.embedding_width), 8)
    sender = Sender(
        model_fingerprint=model.fingerprint,
        instance_id=name,
        host_id=host_id(),
        token=TOKEN,
        transports=["grpc"],
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
    kept = None
    if cache is not None:
        note = instance.caches.note
        kept = KvCache(kv.tensor, kv.blocks, model.fingerprint, cache, on_change=note)
    engine = Engine(
        model,
        kv.tensor,
        kv.blocks,
        EngineConfig(),
        instance,
        cache=kept,
        on_needed=instance.on_items_needed,
    )
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
