"""Whole instances with caches: what goes to peers is complete, and what is cached makes room for it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from core.sequence import SequenceSpec
from core.stages import Stage
from elasticmm.v1 import stage_control_pb2 as pb
from kv_transfer.errors import TransferError
from stage_servers.cache.settings import CacheSettings
from stage_servers.engine.records import StepOutput
from stage_servers.wire import stage_number
from tests.exactness import Question, Tally
from tests.stage_servers.engine.cached import ask, longer, pictured
from tests.stage_servers.engine.conftest import Pair
from tests.stage_servers.engine.harness import Bench
from tests.stage_servers.part import Part, running, until

NUM_TOKENS = 30


class Two:
    """A source that prefills and a target that decodes."""

    def __init__(self, pair: Pair, source: Part, target: Part) -> None:
        self.pair, self.source, self.target = pair, source, target

    async def ask_away(self, question: Question, name: str, prefix_tokens: int = 0) -> SequenceSpec:
        """Prefilled by the source, decoded by the target; the answer is compared."""
        spec = self.spec(question, name)
        self.target.instance.decode(spec)
        self.source.instance.prefill(spec, self.target.address, prefix_tokens)
        await self.provide(spec, question, prefix_tokens)
        await self.answered(spec, question)
        return spec

    async def ask_here(self, question: Question, name: str, prefix_tokens: int = 0) -> SequenceSpec:
        spec = self.spec(question, name)
        self.source.instance.prefill(spec, self.source.address, prefix_tokens)
        await self.provide(spec, question, prefix_tokens)
        await self.answered(spec, question)
        return spec

    def spec(self, question: Question, name: str) -> SequenceSpec:
        return ask(self.pair, question, name, max_tokens=NUM_TOKENS)

    async def provide(self, spec: SequenceSpec, question: Question, prefix_tokens: int = 0) -> None:
        """Embeddings of what the prefix does not hold."""
        items = zip(spec.media, Bench(self.pair.model).embed(spec, question), strict=True)
        for span, embedding in items:
            if span.end_token > prefix_tokens:
                await until(lambda: self.source.engine.load.num_prefilling)
                self.source.instance._supply.provide(spec.key, span.item_index, embedding)

    async def answered(self, spec: SequenceSpec, question: Question) -> None:
        def made() -> list[tuple[int, int]]:
            return [*self.source.tokens.get(spec.key, []), *self.target.tokens.get(spec.key, [])]

        await until(lambda: len(made()) == NUM_TOKENS or self.source.failures or self.target.failures)
        assert not [*self.source.failures, *self.target.failures]
        assert [index for index, _ in made()] == list(range(NUM_TOKENS))
        self.compare(question, spec)

    def compare(self, question: Question, spec: SequenceSpec) -> None:
        """The tokens that both have made of it with those that are right."""
        made = [*self.source.tokens.get(spec.key, []), *self.target.tokens.get(spec.key, [])]
        tally = Tally()
        self.pair.oracle.compare(question, [token for _, token in made], tally)
        tally.check()

    def cached_tokens(self, spec: SequenceSpec) -> int:
        """As the source reported it."""
        (report,) = [
            stage
            for stage in self.source.stages
            if (stage.request_id, stage.stage) == (spec.request_id, stage_number(Stage.PREFILL))
        ]
        return report.cached_tokens

    def kv_counters(self) -> pb.CacheCounters:
        """Of the source."""
        (counters,) = [
            each for each in self.source.instance.caches.counters() if each.pool == pb.CACHE_POOL_KV
        ]
        return counters

    async def check_idle(self) -> None:
        for part in (self.source, self.target):
            await until(lambda part=part: part.engine.num_free_blocks == part.kv.num_blocks)  # type: ignore[misc]
            await part.instance.check_idle()


def flush_when_preempted(part: Part) -> None:
    """The first time, so that its cache has nothing of who was preempted. Until then steps are slow, so that
    who was there first is not done before the other one comes.
    """
    step, flushed = part.engine.step, list[bool]()

    def flushed_step() -> StepOutput:
        if not flushed:
            time.sleep(0.01)
        output = step()
        if output.preempted and not flushed:
            part.engine.flush_cache()
            flushed.append(True)
        return output

    part.engine.step = flushed_step  # type: ignore[method-assign]


@asynccontextmanager
async def two_of(pair: Pair, *, kv_blocks: int = 64) -> AsyncIterator[Two]:
    async with AsyncExitStack() as stack:
        source, target = [
            await stack.enter_async_context(
                running(pair.model, name, kv_blocks=kv_blocks, epoch=epoch, cache=CacheSettings())
            )
            for epoch, name in enumerate(("source", "target"), 1)
        ]
        two = Two(pair, source, target)
        yield two
        await two.check_idle()
        for part in (source, target):
            part.instance.cache_control.flush(None, None)
            await until(lambda part=part: part.kv.blocks.num_free == part.kv.num_blocks)  # type: ignore[misc]


@pytest.fixture
async def two(first: Pair) -> AsyncIterator[Two]:
    async with two_of(first) as made:
        yield made


async def test_a_cached_prefix_is_handed_over_too(two: Two) -> None:
    question = pictured(two.pair)
    spec = await two.ask_away(question, "a")
    assert two.cached_tokens(spec) == 0
    again = await two.ask_away(question, "b", prefix_tokens=64)
    assert two.cached_tokens(again) >= 64 > spec.media[0].end_token
    assert not two.source.needs
    counters = [each for each in two.source.instance.transfers() if each.committed]
    token_bytes = two.source.kv.layout.num_planes * two.source.kv.layout.token_bytes
    assert sum(each.size_bytes for each in counters) == 2 * len(spec.prompt) * token_bytes


async def test_who_decodes_has_the_answer_for_the_next_turn(two: Two) -> None:
    question = two.pair.question(3, num_text=40)
    spec = await two.ask_away(question, "a")
    answer = [token for part in (two.source, two.target) for _, token in part.tokens.get(spec.key, [])]
    swapped = Two(two.pair, two.target, two.source)
    turn = longer(question, [*answer, 5, 6, 7])
    assert swapped.cached_tokens(await swapped.ask_here(turn, "b")) == 40 + NUM_TOKENS - 1


async def test_sequences_that_share_a_prefix_move(two: Two) -> None:
    question = two.pair.question(3, num_text=40)
    await two.ask_here(question, "a")
    spec = two.spec(question, "b")
    two.source.instance.prefill(spec, two.source.address)
    await until(lambda: two.source.num_tokens(spec) >= 2)
    two.target.instance.decode(replace(spec, attempt=spec.attempt + 1))
    two.source.instance.migrate(spec.key, spec.attempt + 1, two.target.address)
    await until(lambda: two.source.migrations)
    moved = two.source.migrations[0].has_moved
    await until(lambda: sum(len(made) for made in made_of(two, "b")) == NUM_TOKENS)
    tally = Tally()
    two.pair.oracle.compare(question, [token for made in made_of(two, "b") for _, token in made], tally)
    tally.check()
    assert two.cached_tokens(spec) == 32
    assert moved == any(key[0] == "b" for key in two.target.tokens)


def made_of(two: Two, name: str) -> list[list[tuple[int, int]]]:
    return [made for part in (two.source, two.target) for key, made in part.tokens.items() if key[0] == name]


async def test_what_is_cached_makes_room_for_what_peers_send(first: Pair) -> None:
    async with two_of(first, kv_blocks=8) as two:
        for seed in range(4):
            await two.ask_away(two.pair.question(seed, num_text=60), f"r{seed}")
        assert two.target.engine.cache is not None
        assert two.target.engine.cache.book.stats.dropped_for_room > 0


async def test_items_that_were_promised_and_are_not_here_are_asked_for(two: Two) -> None:
    question = pictured(two.pair)
    spec = two.spec(question, "a")
    two.source.instance.prefill(spec, two.source.address, 64)
    await until(lambda: two.source.needs)
    (need,) = two.source.needs
    assert (need.request_id, need.attempt, list(need.item_indices)) == ("a", spec.attempt, [0])
    await two.provide(spec, question)
    await two.answered(spec, question)


async def test_one_that_was_spared_its_picture_is_preempted_and_asks_for_it(first: Pair) -> None:
    question, other = pictured(first), first.question(9, num_text=60)
    async with two_of(first, kv_blocks=14) as two:
        await two.ask_here(question, "a")
        source = two.source
        flush_when_preempted(source)
        texts = ask(first, other, "texts", max_tokens=100)
        source.instance.prefill(texts, source.address)
        spared = two.spec(question, "b")
        source.instance.prefill(spared, source.address, 64)
        await until(lambda: source.needs)
        assert [(need.request_id, list(need.item_indices)) for need in source.needs] == [("b", [0])]
        assert source.num_tokens(spared) > 0
        await two.provide(spared, question)
        await two.answered(spared, question)
        await source.has_ended(texts)
        two.compare(other, texts)


async def preempted_at_the_target(
    two: Two, question: Question, other: Question
) -> tuple[SequenceSpec, SequenceSpec]:
    """A text that takes its blocks there, and one with a picture from the source, which asks for it."""
    flush_when_preempted(two.target)
    texts, spec = ask(two.pair, other, "texts", max_tokens=100), two.spec(question, "a")
    two.target.instance.prefill(texts, two.target.address)
    await until(lambda: two.target.num_tokens(texts) >= 60)  # by then it has most of the blocks
    two.target.instance.decode(spec)
    two.source.instance.prefill(spec, two.target.address)
    await two.provide(spec, question)
    await until(lambda: two.target.needs)
    return texts, spec


async def test_one_that_decodes_elsewhere_is_preempted_and_asks_for_its_picture(first: Pair) -> None:
    question, other = pictured(first), first.question(9, num_text=60)
    async with two_of(first, kv_blocks=14) as two:
        source, target = two.source, two.target
        texts, spec = await preempted_at_the_target(two, question, other)
        assert [(need.request_id, list(need.item_indices)) for need in target.needs] == [("a", [0])]
        assert target.num_tokens(spec) > 0
        (embedding,) = Bench(first.model).embed(spec, question)
        await source.instance._sender.send_embedding(target.address, spec.key, 0, embedding)
        await two.answered(spec, question)
        await target.has_ended(texts)
        two.compare(other, texts)
        stages = [(each.request_id, each.stage) for each in target.stages]
        assert ("a", stage_number(Stage.PREFILL)) not in stages
        assert ("a", stage_number(Stage.DECODE)) in stages


async def test_one_that_asked_for_its_picture_may_be_cancelled(first: Pair) -> None:
    question, other = pictured(first), first.question(9, num_text=60)
    async with two_of(first, kv_blocks=14) as two:
        source, target = two.source, two.target
        texts, spec = await preempted_at_the_target(two, question, other)
        await target.instance.cancel(spec.key)
        (embedding,) = Bench(first.model).embed(spec, question)
        with pytest.raises(TransferError, match="has ended here"):
            await source.instance._sender.send_embedding(target.address, spec.key, 0, embedding)
        await target.has_ended(texts)


async def test_a_coordinator_is_told_of_what_is_kept_and_of_what_goes(two: Two) -> None:
    await two.ask_here(two.pair.question(3, num_text=60), "a")
    await until(lambda: len(two.source.kept) == (60 + NUM_TOKENS - 1) // 16)
    counters = two.kv_counters()
    assert (counters.lookups, counters.stored, counters.entries) == (1, 6, 6)  # with the begun block
    two.source.instance.cache_control.flush("theirs", None)
    await two.ask_here(two.pair.question(3, num_text=60), "b")
    assert two.kv_counters().hits > 0
    two.source.instance.cache_control.flush("ours", None)
    await until(lambda: not two.source.kept)
    assert two.kv_counters().evictions["flush"] >= 6
