"""float32 answers equal those of transformers, however the work is cut up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from stage_servers.engine.fastpath import FastPath
from stage_servers.engine.model import Model
from tests.exactness import Tally, make_spec
from tests.stage_servers.engine.conftest import Pair
from tests.stage_servers.engine.harness import Bench, answer_all

NUM_TOKENS = 128
SHAPES = (
    {"num_text": 40},
    {"num_text": 20, "pictures": [(112, 112)]},
    {"num_text": 30, "pictures": [(200, 90), (60, 130), (150, 150)]},
    {"num_text": 1},
)


def run_mixed(pair: Pair, model: Model | None = None, **engine: int) -> Bench:
    questions = [pair.question(seed, **shape) for seed, shape in enumerate(SHAPES)]
    family = pair.oracle.family
    specs = [make_spec(family, q, f"r{i}", max_tokens=NUM_TOKENS) for i, q in enumerate(questions)]
    bench, tally = Bench(model or pair.model, **engine), Tally()
    answer_all(bench, specs, questions)
    for spec, question in zip(specs, questions, strict=True):
        pair.oracle.compare(question, bench.tokens[spec.key], tally)
    assert tally.num_tokens == NUM_TOKENS * len(SHAPES)
    tally.check()
    return bench


def test_pictures_that_are_made_smaller(pair: Pair) -> None:
    """As transformers with its processor set to that size."""
    whole = pair.question(3, num_text=20, pictures=[(200, 190), (60, 60)])
    small = replace(whole, max_pixels=112 * 112)
    family = pair.oracle.family
    specs = [make_spec(family, q, f"r{i}", max_tokens=NUM_TOKENS) for i, q in enumerate((whole, small))]
    assert len(specs[1].prompt) < len(specs[0].prompt)
    bench, tally = Bench(pair.model), Tally()
    answer_all(bench, specs, [whole, small])
    for spec, question in zip(specs, (whole, small), strict=True):
        pair.oracle.compare(question, bench.tokens[spec.key], tally)
    tally.check()


@pytest.mark.parametrize("chunk", [16, 512])
def test_without_the_fast_path(pair: Pair, chunk: int) -> None:
    assert pair.plain_model.fast_path is None
    run_mixed(pair, pair.plain_model, max_batch_tokens=chunk, max_sequences=8)


def test_decodes_take_the_fast_path(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    taken = FastPath.run

    def count(path: FastPath, token_ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        rows.append(len(token_ids))
        return taken(path, token_ids, *rest)

    monkeypatch.setattr(FastPath, "run", count)
    bench = run_mixed(pair)
    assert len(rows) >= sum(step.num_prefill_tokens == 0 for step in bench.steps) > NUM_TOKENS - 5
    assert max(rows) >= len(SHAPES)


def test_chunks_over_a_long_context_do_not(first: Pair) -> None:
    """Their rows would each read all of it."""
    fast = first.model.fast_path
    assert fast is not None
    assert fast.is_quicker(16, 16 * 512)
    assert not fast.is_quicker(16, 16 * 520)
    assert not fast.is_quicker(fast.max_rows + 1, 0)


@pytest.mark.parametrize("chunk", [16, 23, 64, 512])
def test_chunk_sizes(pair: Pair, chunk: int) -> None:
    bench = run_mixed(pair, max_batch_tokens=chunk, max_sequences=8)
    chunks = [part for step in bench.steps for part in step.prefilled]
    assert (len(chunks) > len(SHAPES)) == (chunk < 512)


@pytest.mark.parametrize("block_tokens", [1, 5, 32])
def test_block_sizes(pair: Pair, block_tokens: int) -> None:
    run_mixed(pair, block_tokens=block_tokens, num_blocks=4096 // block_tokens)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_answer_may_hold_the_placeholder_of_pictures(pair: Pair, shape: dict[str, Any]) -> None:
    """It goes on as transformers would after the same tokens."""
    question, shown = pair.question(3, **shape), (pair.oracle.family.placeholder_token_id, 65)
    spec = make_spec(pair.oracle.family, question, "r", max_tokens=NUM_TOKENS, outputs=shown)
    bench, tally = Bench(pair.model), Tally()
    answer_all(bench, [spec], [question])
    pair.oracle._compare_conditioned(question, (*shown, *bench.tokens[spec.key]), len(shown), tally)
    tally.check()


def test_text_that_passes_pictures(pair: Pair) -> None:
    """The later text ends its prefill while the picture's is under way; both answers stay as they are."""
    questions = [pair.question(1, num_text=20, pictures=[(200, 200)]), pair.question(2, num_text=12)]
    specs = [make_spec(pair.oracle.family, q, f"r{i}", max_tokens=40) for i, q in enumerate(questions)]
    bench, tally = Bench(pair.model, max_batch_tokens=24), Tally()
    answer_all(bench, specs, questions)
    firsts = [token.key[0] for step in bench.steps for token in step.tokens if token.index == 0]
    assert firsts == ["r1", "r0"]
    assert {part.key[0] for part in bench.steps[0].prefilled} == {"r0", "r1"}
    for spec, question in zip(specs, questions, strict=True):
        pair.oracle.compare(question, bench.tokens[spec.key], tally)
    tally.check()
