"""ENCODE on a whole instance: what the cache has is neither fetched nor encoded, and the bytes are equal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import torch

from core.sequence import CacheUse
from kv_transfer.layout import PayloadKind
from stage_servers.cache.held import HeldEmbedding
from stage_servers.encoding.queue import Encoding
from stage_servers.engine.model import Model
from stage_servers.media_pull import MediaGoneError
from stage_servers.parcel import Parcel
from tests.exactness import Question
from tests.stage_servers.pair import USE, Pair, paired
from tests.stage_servers.part import Part, until

OTHER = CacheUse(b"o" * 32, "t")


@pytest.fixture
async def pair(model: Model, question: Question, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    async with paired(model, question, monkeypatch) as made:
        yield made


@pytest.mark.parametrize("where", ["encoder", "prefill"])
async def test_a_hit_is_neither_fetched_nor_encoded(pair: Pair, answer: list[int], where: str) -> None:
    at: Part = getattr(pair, where)
    answers = [(await pair.answered(pair.ask(name, at=at)))[0] for name in ("first", "second")]
    assert answers == [answer, answer]
    assert (pair.counted.pulls, pair.counted.encodes) == (1, 1)
    first, second = await pair.encoded(2)
    assert (first.cached_tokens, first.device_s > 0) == (0, True)
    assert (second.cached_tokens, second.device_s) == (pair.spec("").media[0].num_tokens, 0)
    assert first.transport == second.transport == ("local" if where == "encoder" else "grpc")
    await pair.idle()


@pytest.mark.parametrize("where", ["encoder", "prefill"])
async def test_the_engine_hears_whether_an_embedding_comes_back_to_it(
    pair: Pair, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that no step goes before a prompt that goes on with it."""
    queue = pair.encoder.instance._thread._encodes
    heard: list[bool] = []
    add = queue.add

    def hearing(encoding: Encoding) -> None:
        heard.append(encoding.comes_back)
        add(encoding)

    monkeypatch.setattr(queue, "add", hearing)
    await pair.answered(pair.ask("first", at=getattr(pair, where)))
    assert heard == [where == "encoder"]
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
    pool = pair.encoder.instance._shelf._pool
    assert given[0].untyped_storage().data_ptr() == pool.memory.untyped_storage().data_ptr()
    await pair.idle()


async def test_what_arrives_is_kept_where_it_is_prefilled(pair: Pair) -> None:
    spec = pair.ask("first", at=pair.prefill)
    await pair.answered(spec)
    cache = pair.prefill.instance.embedding_cache
    key = cache.key_of(USE, spec.media[0])
    assert key is not None
    await until(lambda: cache.num_idle_blocks == cache.num_blocks > 0)
    held = [part.instance.embedding_cache.find(key, spec.media[0].num_tokens) for part in pair.parts]
    sent, arrived = [each.embedding.clone() for each in held if each is not None]
    assert torch.equal(sent, arrived)
    for each in held:
        assert each is not None
        each.release()
    await until(lambda: pair.prefill.kept == pair.encoder.kept == {key})
    await pair.idle()


async def test_what_waits_for_room_at_a_peer_holds_none_here_for_long(
    pair: Pair, answer: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that encode for each other would wait for each other."""
    monkeypatch.setattr(Parcel.leave_blocks, "__defaults__", (0.01,))
    mine, theirs = (part.instance._shelf._pool for part in pair.parts)
    taken = theirs.blocks.allocate(theirs.num_blocks)
    spec = pair.ask("first", at=pair.prefill)
    cache = pair.encoder.instance.embedding_cache
    await until(lambda: cache.num_blocks and cache.num_idle_blocks == cache.num_blocks)
    room = pair.encoder.receiver.rooms[PayloadKind.EMBEDDING]
    overwritten = await room.take(mine.num_blocks)
    mine.memory.fill_(1e3)
    mine.blocks.release(overwritten)
    theirs.blocks.release(taken)
    assert await pair.answered(spec) == [answer]
    await pair.idle()


@pytest.mark.parametrize("use", [OTHER, None])
async def test_another_salt_or_none_encodes_again(pair: Pair, use: CacheUse | None) -> None:
    await pair.answered(pair.ask("first", at=pair.encoder))
    await pair.answered(pair.ask("second", at=pair.encoder, use=use))
    assert pair.counted.encodes == 2
    assert all(report.cached_tokens == 0 for report in await pair.encoded(2))
    await pair.idle()


async def test_twenty_requests_at_once_encode_once(pair: Pair, answer: list[int]) -> None:
    pair.counted.go.clear()
    specs = [pair.ask(f"r{number}", at=pair.encoder) for number in range(20)]
    await until(lambda: pair.counted.pulls)
    pair.counted.go.set()
    assert await pair.answered(*specs) == 20 * [answer]
    assert (pair.counted.pulls, pair.counted.encodes) == (1, 1)
    assert sum(report.cached_tokens > 0 for report in await pair.encoded(20)) == 19
    await pair.idle()


async def test_one_that_is_cancelled_leaves_the_others(pair: Pair, answer: list[int]) -> None:
    pair.counted.go.clear()
    gone, *specs = [pair.ask(f"r{number}", at=pair.encoder) for number in range(3)]
    await until(lambda: pair.counted.pulls)
    await pair.encoder.instance.cancel(gone.key)
    pair.counted.go.set()
    assert await pair.answered(*specs) == 2 * [answer]
    assert pair.counted.pulls == 1
    assert {report.request_id for report in await pair.encoded(2)} == {"r1", "r2"}
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


@pytest.mark.parametrize("is_sending", [False, True])
async def test_an_embedding_for_a_prefill_that_has_ended_is_no_failure_of_its_own(
    pair: Pair, is_sending: bool
) -> None:
    """The prefill had all of it cached; it ends before the embedding is offered, or while that is sent."""
    spec = pair.ask("first", at=pair.prefill)
    await pair.answered(spec)
    late = pair.spec("late")
    pair.prefill.instance.prefill(late, pair.prefill.address)
    if is_sending:
        provided = pair.prefill.instance.on_embedding

        def ended_meanwhile(*arguments: Any) -> None:
            pair.prefill.instance._to_prefill.end(late.key)
            provided(*arguments)

        pair.prefill.instance.on_embedding = ended_meanwhile  # type: ignore[method-assign]
    else:
        await pair.prefill.instance.cancel(late.key)
    pair.encode(late, pair.prefill.address)
    await until(lambda: pair.failures)
    (failure,) = pair.failures
    assert (failure.request_id, failure.code) == ("late", grpc.StatusCode.NOT_FOUND.value[0])
    await pair.prefill.instance.cancel(late.key)
    await pair.idle()


async def test_what_a_sequence_reads_stays_under_pressure(pair: Pair, answer: list[int]) -> None:
    """All that nobody uses goes, the answer is that without a cache."""
    await pair.answered(pair.ask("first", at=pair.encoder))
    shelf, pool = pair.encoder.instance._shelf, pair.encoder.instance._shelf._pool
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
