"""A draw that rounding moved is told from one that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.families import load_family
from core.sampling import SamplingParams
from core.sequence import SequenceSpec
from stage_servers.engine.loader import load_model
from stage_servers.engine.model import Model
from stage_servers.engine.sampler import Array, SampleRow, sample, uniform
from tests.checkpoints import build_checkpoint
from tests.draws import LOGIT_ROUNDING, candidate_sets, compare_sampled, could_be_drawn, next_logits
from tests.exactness import Question, Tally, make_question, make_spec
from tests.stage_servers.engine.harness import Bench, answer_all

NUM_TOKENS = 300
NUM_DRAWS = 200
SAMPLING: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 1.3, "min_p": 0.02, "presence_penalty": 0.5, "frequency_penalty": 0.3},
    {"temperature": 0.9, "repetition_penalty": 1.2, "top_p": 0.9},
    {"temperature": 0.7, "top_k": 40},
    {"temperature": 1.1, "top_k": 50, "top_p": 0.95, "min_p": 0.05},
    {"presence_penalty": 0.5},
]
sampled = pytest.mark.parametrize("sampling", SAMPLING)


def make_case(sampling: dict[str, Any], index: int) -> tuple[Array, SampleRow]:
    rng = np.random.default_rng(index)
    logits = rng.normal(0.0, 2.0, NUM_TOKENS)
    outputs = [int(token) for token in rng.choice(np.argsort(-logits)[:40], 60)]
    params = SamplingParams(max_tokens=999, seed=7, **sampling)
    return logits, SampleRow(params, index, tuple(range(9)), outputs)


def draw(logits: Array, row: SampleRow) -> int:
    (drawn,) = sample(torch.tensor(logits)[None], [row])
    assert drawn is not None
    return drawn.token_id


@sampled
def test_only_what_is_drawn_could_be_drawn(sampling: dict[str, Any]) -> None:
    for index in range(8):
        logits, row = make_case(sampling, index)
        possible = [token for token in range(NUM_TOKENS) if could_be_drawn(logits, row, token)]
        assert possible == [draw(logits, row)]


@sampled
def test_whatever_rounding_does_is_excused(sampling: dict[str, Any]) -> None:
    """Coarse rounding, so that it moves draws; it moves filter bounds as well."""
    num_moved, tolerance = 0, 0.05
    for index in range(NUM_DRAWS):
        logits, row = make_case(sampling, index)
        noise = np.random.default_rng(index + 1000).choice([-tolerance, tolerance], NUM_TOKENS)
        token = draw(logits + noise, row)
        num_moved += token != draw(logits, row)
        assert could_be_drawn(logits, row, token, tolerance)
    assert num_moved >= 3


MISTAKES: list[tuple[str, Callable[[SampleRow], SampleRow]]] = [
    ("the next index", lambda row: replace(row, index=row.index + 1)),
    ("an earlier index", lambda row: replace(row, index=max(0, row.index - 40))),
    ("another seed", lambda row: replace(row, params=replace(row.params, seed=8))),
    ("the seed lost", lambda row: replace(row, params=replace(row.params, seed=0))),
    ("the newest output missing", lambda row: replace(row, outputs=row.outputs[:-1])),
    ("outputs since the move only", lambda row: replace(row, outputs=row.outputs[40:])),
    ("no outputs", lambda row: replace(row, outputs=())),
    ("outputs twice", lambda row: replace(row, outputs=[*row.outputs, *row.outputs])),
]


@pytest.mark.parametrize(("_", "mistake"), MISTAKES, ids=[name for name, _ in MISTAKES])
def test_mistakes_are_not_excused(_: str, mistake: Callable[[SampleRow], SampleRow]) -> None:
    num_moved = 0
    for index in range(NUM_DRAWS):
        logits, row = make_case(SAMPLING[1], index)
        token = draw(logits, mistake(row))
        if token != draw(logits, row):
            num_moved += 1
            assert not could_be_drawn(logits, row, token)
    assert num_moved >= 3


def test_logits_of_other_kv_are_not_excused() -> None:
    """Far closer to the right ones than those that a wrong row of KV gives."""
    num_excused = num_moved = 0
    for index in range(NUM_DRAWS):
        logits, row = make_case(SAMPLING[0], index)
        token = draw(logits + np.random.default_rng(index + 1000).normal(0.0, 0.05, NUM_TOKENS), row)
        num_moved += token != draw(logits, row)
        num_excused += token != draw(logits, row) and could_be_drawn(logits, row, token)
    assert num_moved >= 3
    assert num_excused == 0


@pytest.mark.parametrize(
    ("shares", "changed", "kept"),
    [
        ([0.1, 0.4, 0.2, 0.3], {}, [[0, 1, 2, 3]]),
        ([0.1, 0.4, 0.2, 0.3], {"top_k": 2}, [[1, 3]]),
        ([0.3, 0.4, 0.0, 0.3], {"top_k": 2}, [[0, 1], [1, 3]]),
        ([0.1, 0.4, 0.2, 0.3], {"top_p": 0.6}, [[1, 3]]),
        ([0.1, 0.4, 0.2, 0.3], {"top_p": 0.7}, [[1, 3], [1, 2, 3]]),
        ([0.1, 0.4, 0.2, 0.3], {"min_p": 0.6}, [[1, 3]]),
        ([0.1, 0.4, 0.2, 0.3], {"min_p": 0.5}, [[1, 3], [1, 2, 3]]),
        ([0.1, 0.4, 0.2, 0.3], {"min_p": 1.0}, [[1]]),
        ([0.4, 0.4, 0.2, 0.0], {"min_p": 1.0}, [[0], [1], [0, 1]]),
        ([0.1, 0.4, 0.2, 0.3], {"top_k": 3, "top_p": 7 / 9}, [[1, 3], [1, 2, 3]]),
    ],
)
def test_bounds_in_doubt(shares: list[float], changed: dict[str, Any], kept: list[list[int]]) -> None:
    params = SamplingParams(max_tokens=1, temperature=1.0, **changed)
    found = candidate_sets(np.array(shares), params, LOGIT_ROUNDING)
    assert [tokens.tolist() for tokens in found] == kept


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(path: Path) -> Model:
    return load_model(path)


@pytest.fixture(scope="module")
def question(path: Path) -> Question:
    return make_question(load_family(path), 3, pictures=[(112, 112)])


def answer(model: Model, question: Question, spec: SequenceSpec) -> tuple[int, ...]:
    bench = Bench(model)
    answer_all(bench, [spec], [question])
    return (*spec.outputs, *bench.tokens[spec.key])


def narrow_spec(model: Model, question: Question, max_tokens: int) -> tuple[SequenceSpec, int]:
    """One whose first draw lies within rounding of an edge, and the token beyond that edge."""
    spec = make_spec(model.description, question, "r", max_tokens=max_tokens, temperature=1.0)
    logits = next_logits(model, question, spec)
    edges = np.cumsum(np.exp(logits) / np.exp(logits).sum())
    for seed in range(100_000):
        number = uniform(seed, 0)
        place = int(np.abs(edges - number).argmin())
        if abs(edges[place] - number) < 1e-7:
            beyond = place if number >= edges[place] else place + 1
            return replace(spec, sampling=replace(spec.sampling, seed=seed)), beyond
    raise AssertionError("no seed draws so close to an edge")


@pytest.mark.parametrize("max_tokens", [1, 12])
def test_a_moved_draw_is_counted_and_followed(model: Model, question: Question, max_tokens: int) -> None:
    spec, beyond = narrow_spec(model, question, max_tokens)
    alone, tally = answer(model, question, spec), Tally()
    moved = (beyond,) if max_tokens == 1 else answer(model, question, replace(spec, outputs=(beyond,)))
    assert moved[0] != alone[0]
    compare_sampled(model, question, spec, moved, alone, tally=tally)
    assert (tally.num_tokens, tally.num_ties) == (max_tokens, 1)


def test_what_does_not_follow_from_a_moved_draw_is_refused(model: Model, question: Question) -> None:
    spec, beyond = narrow_spec(model, question, 12)
    alone = answer(model, question, spec)
    moved = answer(model, question, replace(spec, outputs=(beyond,)))
    wrong = (*moved[:6], (moved[6] + 1) % 300, *moved[7:])
    with pytest.raises(AssertionError, match="sampled token 6"):
        compare_sampled(model, question, spec, wrong, alone, tally=Tally())


def test_draws_of_another_seed_are_refused(model: Model, question: Question) -> None:
    spec = make_spec(model.description, question, "r", max_tokens=12, temperature=1.0, seed=1)
    other = answer(model, question, replace(spec, sampling=replace(spec.sampling, seed=2)))
    with pytest.raises(AssertionError, match="sampled token 0"):
        compare_sampled(model, question, spec, other, answer(model, question, spec), tally=Tally())
