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
from stage_servers.cache.kv_cache import KvCache
from stage_servers.cache.settings import CacheSettings
from stage_servers.engine.engine import Engine
from stage_servers.engine.model import Model
from stage_servers.engine.records import EngineConfig, StepOutput
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
    cache: KvCache | None = None
    steps: list[StepOutput] = field(default_factory=list)
    tokens: dict[tuple[str, int], list[tuple[int, int]]] = field(default_factory=dict)
    migrations: list[pb.MigrationReport] = field(default_factory=list)
    stages: list[pb.StageReport] = field(default_factory=list)
    failures: list[pb.FailureReport] = field(default_factory=list)
    needs: list[pb.NeedReport] = field(default_factory=list)
    kept: set[bytes] = field(default_factory=set)  # cache keys, as reported
    reported: list[str] = field(default_factory=list)  # kinds in order, "tokens" once in a row

    async def collect(self) -> None:
        while True:
            message = await self.instance.reports.next()
            kind = message.WhichOneof("message") or ""
            if kind == "migration":
                self.migrations.append(message.migration)
            elif kind == "need":
                self.needs.append(message.need)
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

    def num_prefilled(self, spec: SequenceSpec) -> int:
        """Tokens of it that steps of this instance computed before its first new one."""
        return sum(
            chunk.num_tokens for step in self.steps for chunk in step.prefilled if chunk.key == spec.key
        )

    async def has_ended(self, spec: SequenceSpec, but: int = 0) -> None:
        """All its tokens came from here, `but` so many."""
        await until(lambda: self.num_tokens(spec) == spec.sampling.max_tokens - but)
        await self.instance._thread.call(lambda: None)

    def assert_nothing_is_held(self) -> None:
        self.engine.check_integrity()
        self.receiver.check_integrity()
        assert not list(self.receiver.leases)
        assert self.sender.stats.in_flight == 0

    @property
    def is_free(self) -> bool:
        num_kept = self.cache.num_blocks if self.cache else 0
        return self.kv.blocks.num_free + num_kept == self.kv.num_blocks


def _keys(joined: bytes) -> set[bytes]:
    return {joined[at : at + DIGEST_BYTES] for at in range(0, len(joined), DIGEST_BYTES)}


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.002)


@asynccontextmanager
async def running(
    model: Model,
    name: str,
    *,
    kv_blocks: int,
    epoch: int,
    block_tokens: int = 16,
    transport: str = "grpc",
    cache: CacheSettings | None = None,
    cluster: str = "",
    fingerprint: str | None = None,
) -> AsyncIterator[Part]:
    """With a `cluster` its pools lie in shared memory. `fingerprint` is said to be the model's."""
    fingerprint = fingerprint or model.fingerprint
    owner = SegmentOwner(cluster, name, epoch) if cluster else None
    kv = Pool(
        kv_layout(
            fingerprint,
            model.dtype,
            num_layers=model.num_layers,
            num_heads=model.num_kv_heads,
            head_dim=model.head_dim,
            block_tokens=block_tokens,
        ),
        kv_blocks,
        owner=owner,
    )
    layout = embedding_layout(fingerprint, model.dtype, width=model.embedding_width)
    embeddings = Pool(layout, 8, owner=owner)
    sender = Sender(
        model_fingerprint=fingerprint,
        instance_id=name,
        host_id=host_id(),
        token=TOKEN,
        transports=[transport] if transport == "grpc" else [transport, "grpc"],
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
        pull_timeout_s=30.0,
        embedding_cache=CacheSettings(),
    )
    instance.instance_id = name
    receiver = TransferReceiver(
        {PayloadKind.KV: kv, PayloadKind.EMBEDDING: embeddings},
        instance,
        epoch=epoch,
        host_id=host_id(),
        checksums=True,
    )
    kept = (
        None
        if cache is None
        else KvCache(kv.tensor, kv.blocks, fingerprint, cache, on_change=instance.caches.note)
    )
    config = EngineConfig(block_tokens=block_tokens)
    engine = Engine(
        model, kv.tensor, kv.blocks, config, instance, cache=kept, on_needed=instance.on_items_needed
    )
    steps = record_steps(engine)
    await receiver.start()
    instance.start(engine, receiver, max_encode_tokens=64)
    server = grpc.aio.server()
    add_transfer_service(server, receiver, TOKEN)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    part = Part(
        instance, engine, kv, receiver, sender, PeerAddress(name, f"127.0.0.1:{port}", host_id(), epoch)
    )
    part.cache, part.steps = kept, steps
    instance.endpoint = part.address.endpoint
    instance.caches.attach()
    collecting = asyncio.create_task(part.collect())
    try:
        yield part
    finally:
        collecting.cancel()
        await instance.stop()
        await sender.close()
        await server.stop(None)
        await receiver.close()
        kv.close()
        embeddings.close()


def record_steps(engine: Engine) -> list[StepOutput]:
    """All that this engine does from here on."""
    steps: list[StepOutput] = []
    step = engine.step

    def recorded() -> StepOutput:
        steps.append(step())
        return steps[-1]

    engine.step = recorded  # type: ignore[method-assign]
    return steps
