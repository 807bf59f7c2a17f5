"""An embedding in the encoder's shared segment is read there by the instance that prefills."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
import torch

from kv_transfer.segment import SHM_DIR
from stage_servers.cache.held import HeldEmbedding
from stage_servers.engine.model import Model
from tests.exactness import Question
from tests.stage_servers.pair import Pair, paired
from tests.stage_servers.part import until

CLUSTER = f"in-place-tests-{os.getpid()}"


@pytest.fixture
async def pair(model: Model, question: Question, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    async with paired(model, question, monkeypatch, CLUSTER) as made:
        yield made
    assert list(SHM_DIR.glob(f"elasticmm-{CLUSTER}-*")) == []


async def test_it_is_read_in_place_and_the_answer_is_the_same(pair: Pair, answer: list[int]) -> None:
    pool = pair.prefill.instance._shelf._pool
    for name in ("first", "second"):
        assert await pair.answered(pair.ask(name, at=pair.prefill)) == [answer]
        assert pool.blocks.num_free == pool.num_blocks
    assert [report.transport for report in await pair.encoded(2)] == ["in_place", "in_place"]
    assert pair.counted.encodes == 1
    await pair.idle()


async def test_the_engine_reads_the_bytes_that_were_encoded(pair: Pair) -> None:
    shelf, read = pair.prefill.instance._shelf, list[torch.Tensor]()
    put = shelf.put

    def watching(key: tuple[str, int], held: HeldEmbedding) -> torch.Tensor:
        read.append(held.embedding.clone())
        return put(key, held)

    shelf.put = watching  # type: ignore[method-assign]
    spec = pair.ask("first", at=pair.prefill)
    await pair.answered(spec)
    cache = pair.encoder.instance.embedding_cache
    held = cache.find(cache.key_of(spec.cache, spec.media[0]) or b"", spec.media[0].num_tokens)
    assert held is not None
    assert torch.equal(read[0], held.embedding)
    held.release()
    await pair.idle()


async def test_what_is_read_elsewhere_is_not_evicted_before_it_is_released(
    pair: Pair, answer: list[int]
) -> None:
    shelf, pool = pair.prefill.instance._shelf, pair.encoder.instance._shelf._pool
    put, taken = shelf.put, list[int]()

    def put_under_pressure(key: tuple[str, int], held: HeldEmbedding) -> torch.Tensor:
        view = put(key, held)
        pool.blocks.ask_for(pool.num_blocks)
        taken.extend(pool.blocks.allocate(pool.blocks.num_free))
        pool.write_tokens(0, taken, 0, torch.full((len(taken) * 16, pool.elements_per_token), 1e3))
        return view

    shelf.put = put_under_pressure  # type: ignore[method-assign]
    assert await pair.answered(pair.ask("first", at=pair.prefill)) == [answer]
    assert 0 < len(taken) < pool.num_blocks
    await until(lambda: not shelf._held)
    pool.blocks.ask_for(pool.num_blocks)
    assert pool.blocks.num_free == pool.num_blocks - len(taken)
    assert not pair.encoder.instance.embedding_cache.keys
    pool.blocks.release(taken)
    await pair.idle()


async def test_a_cancelled_reader_lets_go(pair: Pair) -> None:
    spec = pair.spec("r")
    pair.encode(spec, pair.prefill.address)
    pair.prefill.instance.prefill(spec, pair.encoder.address)  # which never heard of it
    await pair.encoded(1)
    assert pair.encoder.instance._shelf.lender.lent_blocks
    await pair.prefill.instance.cancel(spec.key)
    await pair.idle()


async def test_a_cancelled_offer_lets_go(pair: Pair) -> None:
    spec = pair.spec("r")
    pair.encode(spec, pair.prefill.address)
    await until(lambda: pair.encoder.instance._shelf.lender.lent_blocks)
    await pair.encoder.instance.cancel(spec.key)
    await pair.idle()


async def test_an_offer_that_comes_before_the_command_is_not_lost(pair: Pair, answer: list[int]) -> None:
    """The engine is given a sequence that is handed over some turns of the loop after the command."""
    spec = pair.spec("early")
    pair.encode(spec, pair.prefill.address)
    expected = pair.prefill.instance._to_prefill
    await until(lambda: spec.key in expected._known)
    pair.encoder.instance.decode(spec)
    pair.prefill.instance.prefill(spec, pair.encoder.address)
    assert await pair.answered(spec) == [answer]
    await pair.idle()
