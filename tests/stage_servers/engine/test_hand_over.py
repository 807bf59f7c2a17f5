"""A sequence prefilled by one engine and decoded by another gives the same tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch

from stage_servers.engine.fastpath import FastPath
from stage_servers.engine.records import WrittenChunk
from tests.exactness import Tally, make_spec
from tests.stage_servers.engine.conftest import Pair
from tests.stage_servers.engine.harness import Bench


class LayerCopier:
    """Copies each layer's KV to another pool as soon as the listener hears of it."""

    def __init__(self) -> None:
        self.source: Bench | None = None
        self.target: Bench | None = None
        self.blocks: list[int] = []
        self.heard: list[tuple[int, WrittenChunk]] = []

    def on_layers_written(self, layers: range, chunks: Sequence[WrittenChunk]) -> None:
        assert self.source is not None
        assert self.target is not None
        for layer, chunk in product(layers, chunks):
            self.heard.append((layer, chunk))
            mine = self.source.engine.block_ids(chunk.key)
            size = self.source.pool.shape[2]
            for token in range(chunk.first_token, chunk.first_token + chunk.num_tokens):
                place, offset = divmod(token, size)
                theirs = self.target.pool[2 * layer : 2 * layer + 2, self.blocks[place], offset]
                theirs.copy_(self.source.pool[2 * layer : 2 * layer + 2, mine[place], offset])


@pytest.mark.parametrize("chunk", [16, 512])
def test_kv_goes_over_layer_by_layer(pair: Pair, chunk: int) -> None:
    copier = LayerCopier()
    prefill, decode = (
        Bench(pair.model, max_batch_tokens=chunk, max_sequences=4, listener=copier),
        Bench(pair.model),
    )
    copier.source, copier.target = prefill, decode
    question = pair.question(5, num_text=30, pictures=[(112, 112), (90, 60)])
    spec = make_spec(pair.oracle.family, question, "r")
    copier.blocks = decode.blocks.allocate(-(-len(spec.prompt) // 16))
    prefill.start(spec, question, hand_over=True)
    prefill.run()
    (first,) = [token for step in prefill.steps for token in step.tokens]
    assert first.handed_over
    assert prefill.engine.block_ids(spec.key)

    decode.engine.add_decode(replace(spec, outputs=(first.token_id,)), copier.blocks, len(spec.prompt))
    assert prefill.engine.release(spec.key)
    decode.run()
    assert sum(part.num_tokens for layer, part in copier.heard if layer == 2) == len(spec.prompt)
    assert decode.steps[0].num_prefill_tokens == 0
    tally = Tally()
    pair.oracle.compare(question, [first.token_id, *decode.tokens[spec.key]], tally)
    tally.check()
    for bench in (prefill, decode):
        assert bench.blocks.num_free == bench.blocks.num_blocks


def test_kv_of_few_rows_goes_over_from_the_fast_path(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    copier, rows, taken = LayerCopier(), [], FastPath.run

    def count(path: FastPath, token_ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        rows.append(len(token_ids))
        return taken(path, token_ids, *rest)

    monkeypatch.setattr(FastPath, "run", count)
    prefill, decode = Bench(pair.model, listener=copier), Bench(pair.model)
    copier.source, copier.target = prefill, decode
    question = pair.question(5, num_text=20)
    spec = make_spec(pair.oracle.family, question, "r")
    copier.blocks = decode.blocks.allocate(-(-len(spec.prompt) // 16))
    prefill.start(spec, question, hand_over=True)
    (first,) = prefill.step().tokens
    assert first.handed_over
    assert rows == [len(spec.prompt)]
    assert [layer for layer, _ in copier.heard] == list(range(pair.model.num_layers))

    decode.engine.add_decode(replace(spec, outputs=(first.token_id,)), copier.blocks, len(spec.prompt))
    assert prefill.engine.release(spec.key)
    decode.run()
    tally = Tally()
    pair.oracle.compare(question, [first.token_id, *decode.tokens[spec.key]], tally)
    tally.check()


def test_hand_over_that_ends_with_its_first_token(first: Pair) -> None:
    question = first.question(1)
    bench = Bench(first.model)
    bench.start(make_spec(first.oracle.family, question, "r", max_tokens=1), question, hand_over=True)
    (token,) = bench.step().tokens
    assert token.finish is not None
    assert not token.handed_over
    assert bench.blocks.num_free == bench.blocks.num_blocks


def test_abort_of_a_parked_sequence_frees_it(first: Pair) -> None:
    question = first.question(1)
    bench, spec = Bench(first.model), make_spec(first.oracle.family, first.question(1), "r")
    bench.start(spec, question, hand_over=True)
    bench.run()
    assert bench.blocks.num_free < bench.blocks.num_blocks
    assert bench.engine.abort(spec.key)
    assert not bench.engine.abort(spec.key)
    assert bench.blocks.num_free == bench.blocks.num_blocks


@pytest.mark.parametrize("num_cached", [0, 24, 26])
def test_decode_wants_all_tokens_but_the_newest(first: Pair, num_cached: int) -> None:
    spec = make_spec(first.oracle.family, first.question(1), "r", outputs=(1, 2))
    bench = Bench(first.model)
    with pytest.raises(ValueError, match="num_cached_tokens"):
        bench.engine.add_decode(spec, [0, 1], num_cached)
