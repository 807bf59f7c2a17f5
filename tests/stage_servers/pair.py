"""An instance that encodes and one that prefills, in one process, with what is counted of their work."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from core.families import load_family
from core.sampling import SamplingParams
from core.sequence import CacheUse, SequenceSpec
from elasticmm.v1 import stage_control_pb2 as pb
from elasticmm.v1.inference_pb2 import STAGE_ENCODE
from kv_transfer.sender import PeerAddress
from stage_servers.encode_stage import EncodeJob
from stage_servers.engine.model import Model
from stage_servers.media_pull import MediaPuller, MediaSource
from tests.exactness import Question, expand
from tests.stage_servers.part import Part, running, until

USE = CacheUse(b"s" * 32, "t")
MAX_TOKENS = 8


@dataclass
class Counted:
    """How often what was called."""

    pulls: int = 0
    encodes: int = 0
    go: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None


@dataclass
class Pair:
    """An instance that encodes (and can do all), and one that prefills."""

    encoder: Part
    prefill: Part
    question: Question
    counted: Counted

    @property
    def parts(self) -> tuple[Part, Part]:
        return self.encoder, self.prefill

    @property
    def failures(self) -> list[pb.FailureReport]:
        return self.encoder.failures

    async def encoded(self, count: int) -> list[pb.StageReport]:
        """The encoder's reports of ENCODE."""

        def found() -> list[pb.StageReport]:
            return [report for report in self.encoder.stages if report.stage == STAGE_ENCODE]

        await until(lambda: len(found()) >= count)
        assert len(found()) == count
        return found()

    def spec(self, name: str, use: CacheUse | None = USE) -> SequenceSpec:
        prompt, spans = expand(load_family(self.encoder.engine._model.path), self.question)  # type: ignore[attr-defined]
        identified = tuple(replace(span, identity=hashlib.sha256(span.digest).digest()) for span in spans)
        return SequenceSpec(name, 0, prompt, SamplingParams(max_tokens=MAX_TOKENS), identified, cache=use)

    def ask(self, name: str, *, at: Part, use: CacheUse | None = USE) -> SequenceSpec:
        """The encoder encodes for a prefill there."""
        spec = self.spec(name, use)
        at.instance.prefill(spec, at.address)
        self.encode(spec, at.address)
        return spec

    def encode(self, spec: SequenceSpec, to: PeerAddress) -> None:
        source = MediaSource(spec.media[0].digest, 1, "", "", "")
        self.encoder.instance.encode(EncodeJob(spec.key, source, spec.media[0], to, spec.cache))

    async def answered(self, *specs: SequenceSpec) -> list[list[int]]:
        def tokens(spec: SequenceSpec) -> list[tuple[int, int]]:
            return sorted(token for part in self.parts for token in part.tokens.get(spec.key, ()))

        await until(lambda: all(len(tokens(spec)) == MAX_TOKENS for spec in specs))
        return [[token for _, token in tokens(spec)] for spec in specs]

    async def idle(self) -> None:
        """Nothing is held but what is kept, and that comes back."""
        shelves = [part.instance._shelf for part in self.parts]
        await until(lambda: not any(shelf._held or shelf._specs for shelf in shelves))
        for instance in (part.instance for part in self.parts):
            instance._shelf.lender.sweep()
            await instance.check_idle()
            instance.embedding_cache.flush()
            pool = instance._shelf._pool
            assert pool.blocks.num_free == pool.num_blocks


@asynccontextmanager
async def paired(
    model: Model, question: Question, monkeypatch: pytest.MonkeyPatch, cluster: str = ""
) -> AsyncIterator[Pair]:
    """Fetching a picture waits for `counted.go`, which is set at first, and raises `counted.error`."""
    counted = Counted()
    counted.go.set()
    encode_in_parts = model.encode_in_parts

    async def pull(*_: object) -> bytes:
        counted.pulls += 1
        await counted.go.wait()
        if counted.error is not None:
            raise counted.error
        return question.pictures[0]

    def counting(inputs: Sequence[Any], num_parts: int) -> Iterator[list[torch.Tensor] | None]:
        counted.encodes += len(inputs)
        return encode_in_parts(inputs, num_parts)

    monkeypatch.setattr(MediaPuller, "pull", pull)
    monkeypatch.setattr(model, "encode_in_parts", counting)
    async with AsyncExitStack() as stack:
        encoder, prefill = [
            await stack.enter_async_context(
                running(
                    model,
                    name,
                    kv_blocks=64,
                    epoch=epoch,
                    cluster=cluster,
                    transport="shm" if cluster else "grpc",
                )
            )
            for epoch, name in enumerate(("encoder", "prefill"), 1)
        ]
        yield Pair(encoder, prefill, question, counted)
