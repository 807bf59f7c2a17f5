"""Draws depend on (seed, token index) and the distribution, on nothing else."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

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


def reference(logits: np.ndarray, biases: dict[int, float], one: SampleRow) -> np.ndarray:
    """One token after the other: bias, then penalties."""
    values = [float(value) + biases.get(token, 0.0) for token, value in enumerate(logits)]
    for token in {*one.prompt, *one.outputs}:
        by = one.params.repetition_penalty
        values[token] = values[token] / by if values[token] > 0 else values[token] * by
    for token in set(one.outputs):
        values[token] -= one.params.presence_penalty
        values[token] -= one.params.frequency_penalty * one.outputs.count(token)
    return np.array(values)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_biases_come_before_all_else(temperature: float) -> None:
    rng = np.random.default_rng(5)
    differing = 0
    for index in range(200):
        logits = rng.normal(size=50).astype(np.float32)
        biases = {int(token): float(np.float32(rng.normal() * 3)) for token in rng.integers(50, size=9)}
        changed = {"repetition_penalty": 1.3, "presence_penalty": 0.5, "temperature": temperature, "seed": 3}
        outputs = tuple(rng.integers(50, size=5).tolist())
        one = row(params(logit_bias=tuple(sorted(biases.items())), **changed), index, outputs)
        plain = row(params(temperature=temperature, seed=3), index)
        wanted = draw(reference(logits, biases, one), plain)
        assert draw(logits, one) == wanted
        differing += wanted != draw(logits, plain)
    assert differing > 100


def test_a_biased_greedy_answer_is_transformers(first: Pair) -> None:
    question = first.question(3, num_text=20)
    spec = make_spec(first.oracle.family, question, "r", max_tokens=60)
    common = Counter(first.oracle.answer(question, 60).tokens).most_common(3)
    biases = {token: -4.5 for token, _ in common} | {7: 2.25}
    bench = Bench(first.model)
    bench.start(
        replace(spec, sampling=replace(spec.sampling, logit_bias=tuple(sorted(biases.items())))), question
    )
    bench.run()
    wanted = first.oracle.model.generate(
        torch.tensor([spec.prompt]),
        max_new_tokens=60,
        min_new_tokens=60,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        sequence_bias={(token,): bias for token, bias in biases.items()},
    )[0, -60:].tolist()
    assert bench.tokens[spec.key] == wanted
    assert tuple(wanted) != first.oracle.answer(question, 60).tokens


def test_logprobs_know_nothing_of_biases() -> None:
    (drawn,) = sample(
        torch.tensor(LOGITS)[None], [row(params(temperature=0.0, logprobs=1, logit_bias=((0, 9.0),)))]
    )
    assert drawn is not None
    assert drawn.token_id == 0
    assert drawn.logprobs is not None
    assert drawn.logprobs.logprob == pytest.approx(np.log(0.1))


@pytest.mark.parametrize("changed", [{"temperature": 0.0}, {}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.9}])
def test_only_what_is_allowed_is_drawn(changed: dict[str, float]) -> None:
    allowed = np.array([True, False, True, False])
    drawn = [draw(LOGITS, SampleRow(params(**changed), index, (), (), allowed)) for index in range(200)]
    assert set(drawn) == ({0, 2} if not changed or "top_k" in changed else {2})


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
