"""ENCODE on a whole instance: what the cache has is neither fetched nor encoded, and the bytes are equal."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
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
from stage_servers.cache.held import HeldEmbedding
from stage_servers.encode_stage import EncodeJob
from stage_servers.engine.model import Model
from stage_servers.media_pull import MediaGoneError, MediaPuller, MediaSource
from tests.exactness import Question, expand, make_question
from tests.stage_servers.engine.harness import Bench, answer_all
from tests.stage_servers.part import Part, running, until

USE = CacheUse(b"s" * 32, "t")
OTHER = CacheUse(b"o" * 32, "t")
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
    stages: list[pb.StageReport]
    failures: list[pb.FailureReport]

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
            return self.encoder.tokens.get(spec.key) or self.prefill.tokens.get(spec.key) or []

        await until(lambda: all(len(tokens(spec)) == MAX_TOKENS for spec in specs))
        return [[token for _, token in tokens(spec)] for spec in specs]

    async def idle(self) -> None:
        """Nothing is held but what is kept, and that comes back."""
        for part in (self.encoder, self.prefill):
            instance = part.instance
            await until(lambda instance=instance: not instance._shelf._held and not instance._shelf._specs)  # type: ignore[misc]
            await instance.check_idle()
            instance.embedding_cache.flush()
            pool = instance._embedding_pool
            assert pool.blocks.num_free == pool.num_blocks


@pytest.fixture(scope="module")
def question(model: Model) -> Question:
    return make_question(load_family(model.path), 3, pictures=[(64, 56)])


@pytest.fixture(scope="module")
def answer(model: Model, question: Question) -> list[int]:
    """Without any cache."""
    bench = Bench(model)
    prompt, spans = expand(load_family(model.path), question)
    spec = SequenceSpec("undisturbed", 0, prompt, SamplingParams(max_tokens=MAX_TOKENS), spans)
    answer_all(bench, [spec], [question])
    return bench.tokens[spec.key]


@pytest.fixture
async def pair(model: Model, question: Question, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    counted = Counted()
    counted.go.set()
    encode = model.encode

    async def pull(*_: object) -> bytes:
        counted.pulls += 1
        await counted.go.wait()
        if counted.error is not None:
            raise counted.error
        return question.pictures[0]

    def counting(inputs: Sequence[Any]) -> list[torch.Tensor]:
        counted.encodes += len(inputs)
        return encode(inputs)

    monkeypatch.setattr(MediaPuller, "pull", pull)
    monkeypatch.setattr(model, "encode", counting)
    async with AsyncExitStack() as stack:
        encoder, prefill = [
            await stack.enter_async_context(running(model, name, kv_blocks=64, epoch=epoch))
            for epoch, name in enumerate(("encoder", "prefill"), 1)
        ]
        yield Pair(encoder, prefill, question, counted, encoder.stages, encoder.failures)


async def encoded(pair: Pair, count: int) -> list[pb.StageReport]:
    """The encoder's reports of ENCODE."""

    def found() -> list[pb.StageReport]:
        return [report for report in pair.stages if report.stage == STAGE_ENCODE]

    await until(lambda: len(found()) >= count)
    assert len(found()) == count
    return found()


@pytest.mark.parametrize("where", ["encoder", "prefill"])
async def test_a_hit_is_neither_fetched_nor_encoded(pair: Pair, answer: list[int], where: str) -> None:
    at: Part = getattr(pair, where)
    answers = [(await pair.answered(pair.ask(name, at=at)))[0] for name in ("first", "second")]
    assert answers == [answer, answer]
    assert (pair.counted.pulls, pair.counted.encodes) == (1, 1)
    first, second = await encoded(pair, 2)
    assert (first.cached_tokens, first.device_s > 0) == (0, True)
    assert (second.cached_tokens, second.device_s) == (pair.spec("").media[0].num_tokens, 0)
    assert first.transport == second.transport == ("local" if where == "encoder" else "grpc")
    await pair.idle()


async def test_a_local_hit_is_read_where_it_lies(pair: Pair) -> None:
    await pair.answered(pair.ask("first", at=pair.encoder))
    given: list[torch.Tensor] = []
    engine = pair.encoder.engine
    provide = engine.provide_embedding

    def watching(key: tuple[str, int], item_index: int, embedding: torch.Tensor) -> bool:
        given.append(embedding)
        return provide(key, item_index, embedding)

    engine.provide_embedding = watching  # type: ignore[method-assign]
    await pair.answered(pair.ask("second", at=pair.encoder))
    pool = pair.encoder.instance._embedding_pool
    assert given[0].untyped_storage().data_ptr() == pool.memory.untyped_storage().data_ptr()
    await pair.idle()


async def test_what_arrives_is_kept_where_it_is_prefilled(pair: Pair) -> None:
    spec = pair.ask("first", at=pair.prefill)
    await pair.answered(spec)
    cache = pair.prefill.instance.embedding_cache
    key = cache.key_of(USE, spec.media[0])
    assert key is not None
    await until(lambda: cache.num_idle_blocks == cache.num_blocks > 0)
    held = [each.embedding_cache.find(key, spec.media[0].num_tokens) for each in instances(pair)]
    sent, arrived = [each.embedding.clone() for each in held if each is not None]
    assert torch.equal(sent, arrived)
    for each in held:
        assert each is not None
        each.release()
    assert pair.prefill.kept == pair.encoder.kept == {key}
    await pair.idle()


def instances(pair: Pair) -> list[Any]:
    return [pair.encoder.instance, pair.prefill.instance]


@pytest.mark.parametrize("use", [OTHER, None])
async def test_another_salt_or_none_encodes_again(pair: Pair, use: CacheUse | None) -> None:
    await pair.answered(pair.ask("first", at=pair.encoder))
    await pair.answered(pair.ask("second", at=pair.encoder, use=use))
    assert pair.counted.encodes == 2
    assert all(report.cached_tokens == 0 for report in await encoded(pair, 2))
    await pair.idle()


async def test_twenty_requests_at_once_encode_once(pair: Pair, answer: list[int]) -> None:
    pair.counted.go.clear()
    specs = [pair.ask(f"r{number}", at=pair.encoder) for number in range(20)]
    await until(lambda: pair.counted.pulls)
    pair.counted.go.set()
    assert await pair.answered(*specs) == 20 * [answer]
    assert (pair.counted.pulls, pair.counted.encodes) == (1, 1)
    assert sum(report.cached_tokens > 0 for report in await encoded(pair, 20)) == 19
    await pair.idle()


async def test_one_that_is_cancelled_leaves_the_others(pair: Pair, answer: list[int]) -> None:
    pair.counted.go.clear()
    gone, *specs = [pair.ask(f"r{number}", at=pair.encoder) for number in range(3)]
    await until(lambda: pair.counted.pulls)
    await pair.encoder.instance.cancel(gone.key)
    pair.counted.go.set()
    assert await pair.answered(*specs) == 2 * [answer]
    assert pair.counted.pulls == 1
    assert {report.request_id for report in await encoded(pair, 2)} == {"r1", "r2"}
    await pair.idle()


async def test_if_all_are_cancelled_the_work_is_given_up(pair: Pair) -> None:
    pair.counted.go.clear()
    specs = [pair.ask(f"r{number}", at=pair.encoder) for number in range(3)]
    await until(lambda: pair.counted.pulls)
    await asyncio.gather(*(pair.encoder.instance.cancel(spec.key) for spec in specs))
    assert pair.encoder.instance._encode.num_waiting == 0
    await pair.idle()
    assert pair.counted.encodes == 0


async def test_if_it_fails_each_fails_by_itself(pair: Pair) -> None:
    pair.counted.go.clear()
    pair.counted.error = MediaGoneError("the gateway has lost it")
    specs = [pair.ask(f"r{number}", at=pair.encoder) for number in range(3)]
    await until(lambda: pair.counted.pulls)
    pair.counted.go.set()
    await until(lambda: len(pair.failures) == 3)
    assert {failure.request_id for failure in pair.failures} == {"r0", "r1", "r2"}
    assert {failure.message for failure in pair.failures} == {"the gateway has lost it"}
    for spec in specs:
        await pair.encoder.instance.cancel(spec.key)
    await pair.idle()


async def test_what_a_sequence_reads_stays_under_pressure(pair: Pair, answer: list[int]) -> None:
    """All that nobody uses goes, the answer is that without a cache."""
    await pair.answered(pair.ask("first", at=pair.encoder))
    shelf, pool = pair.encoder.instance._shelf, pair.encoder.instance._embedding_pool
    put, taken = shelf.put, list[int]()

    def put_under_pressure(key: tuple[str, int], held: HeldEmbedding) -> torch.Tensor:
        wanted = pool.num_blocks - len(held.blocks)
        pool.blocks.ask_for(wanted)
        taken.extend(pool.blocks.allocate(wanted))
        pool.write_tokens(0, taken, 0, torch.full((len(taken) * 16, pool.elements_per_token), 1e3))
        return put(key, held)

    shelf.put = put_under_pressure  # type: ignore[method-assign]
    assert await pair.answered(pair.ask("second", at=pair.encoder)) == [answer]
    assert taken
    pool.blocks.release(taken)
    await pair.idle()
