"""Draws depend on (seed, token index) and the distribution, on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.sampling import SamplingParams
from stage_servers.engine.sampler import SampleRow, candidates, penalised, sample, uniform
from tests.exactness import make_spec
from tests.stage_servers.engine.conftest import Pair
from tests.stage_servers.engine.harness import Bench, answer_all

LOGITS = np.log(np.array([0.1, 0.4, 0.2, 0.3]))


def params(**changed: object) -> SamplingParams:
    return SamplingParams(max_tokens=8, **({"temperature": 1.0} | changed))  # type: ignore[arg-type]


def row(params: SamplingParams, index: int = 0, outputs: tuple[int, ...] = ()) -> SampleRow:
    return SampleRow(params, index, (0,), outputs)


def draw(logits: np.ndarray, one: SampleRow) -> int:
    (drawn,) = sample(torch.tensor(logits)[None], [one])
    assert drawn is not None
    return drawn.token_id


@pytest.mark.parametrize(
    ("changed", "kept"),
    [
        ({}, [0, 1, 2, 3]),
        ({"top_k": 2}, [1, 3]),
        ({"top_k": 9}, [0, 1, 2, 3]),
        ({"top_p": 0.4}, [1]),
        ({"top_p": 0.5}, [1, 3]),
        ({"top_p": 0.95}, [0, 1, 2, 3]),
        ({"min_p": 0.5}, [1, 2, 3]),
        ({"min_p": 1.0}, [1]),
        ({"top_k": 3, "top_p": 0.7}, [1, 3]),
    ],
)
def test_filters(changed: dict[str, float], kept: list[int]) -> None:
    tokens, _ = candidates(LOGITS, params(**changed))
    assert tokens.tolist() == kept


def test_nucleus_wider_than_the_first_candidates() -> None:
    tokens, weights = candidates(np.zeros(10_000), params(top_p=0.9))
    assert len(tokens) == 9000
    assert len(set(tokens.tolist())) == len(weights)


def test_draws_follow_the_distribution() -> None:
    drawn = [draw(LOGITS, row(params(seed=7), index)) for index in range(4000)]
    shares = np.bincount(drawn, minlength=4) / len(drawn)
    assert np.abs(shares - np.exp(LOGITS)).max() < 0.03


def test_temperature_sharpens() -> None:
    drawn = [draw(LOGITS, row(params(temperature=0.05), index)) for index in range(200)]
    assert drawn.count(1) > 190


def test_uniform_is_a_function_of_seed_and_index() -> None:
    values = {uniform(seed, index) for seed in (0, 1, 2**63, 2**64 - 1) for index in range(50)}
    assert len(values) == 200
    assert uniform(3, 4) == uniform(3, 4)


def test_penalties() -> None:
    one = row(params(repetition_penalty=2.0, presence_penalty=0.5, frequency_penalty=0.25), outputs=(1, 1))
    before = np.array([2.0, 2.0, -2.0, 1.0])
    assert penalised(before, one).tolist() == [1.0, 0.0, -2.0, 1.0]
    assert before.tolist() == [2.0, 2.0, -2.0, 1.0]


def test_greedy_heeds_penalties() -> None:
    assert draw(LOGITS, row(params(temperature=0.0))) == 1
    assert draw(LOGITS, row(params(temperature=0.0, presence_penalty=1.0), outputs=(1,))) == 3


def test_logprobs_are_those_of_the_model() -> None:
    (drawn,) = sample(torch.tensor(LOGITS)[None], [row(params(temperature=0.0, logprobs=2))])
    assert drawn is not None
    assert drawn.logprobs is not None
    assert drawn.logprobs.logprob == pytest.approx(np.log(0.4))
    assert [token for token, _ in drawn.logprobs.top] == [1, 3]


def test_rows_that_are_no_numbers_are_told_apart() -> None:
    logits = torch.tensor([[0.0, float("nan")], [0.0, 1.0]])
    bad, good = sample(logits, [row(params(temperature=0.0))] * 2)
    assert bad is None
    assert good is not None
    assert good.token_id == 1


def test_seeded_answers_are_the_same_in_every_set_up(pair: Pair) -> None:
    questions = [pair.question(seed, num_text=20, pictures=[(112, 112)] * (seed % 2)) for seed in range(3)]
    specs = [
        make_spec(
            pair.oracle.family, q, f"r{i}", max_tokens=40, temperature=1.0, top_p=0.95, top_k=40, seed=i
        )
        for i, q in enumerate(questions)
    ]
    answers = []
    for chunk, together in ((512, True), (16, True), (33, False)):
        bench = Bench(pair.model, max_batch_tokens=chunk, max_sequences=8)
        groups = [range(3)] if together else [[i] for i in range(3)]
        for group in groups:
            answer_all(bench, [specs[i] for i in group], [questions[i] for i in group])
        answers.append(bench.tokens)
    assert answers[0] == answers[1] == answers[2]
    greedy = pair.oracle.answer(questions[0], 128).tokens[:40]
    assert tuple(answers[0][specs[0].key]) != greedy
