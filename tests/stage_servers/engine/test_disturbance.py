"""Preemption, late embeddings, aborts and going on from given tokens change no answer."""

from __future__ import annotations

import pytest

from core.sequence import FinishReason
from tests.exactness import Tally, make_spec
from tests.stage_servers.engine.conftest import Pair
from tests.stage_servers.engine.harness import Bench, answer_all


def test_preemption(pair: Pair) -> None:
    questions = [pair.question(seed, num_text=20, pictures=[(112, 112)] * (seed % 2)) for seed in range(4)]
    specs = [make_spec(pair.oracle.family, q, f"r{i}") for i, q in enumerate(questions)]
    bench, tally = Bench(pair.model, num_blocks=24, max_batch_tokens=32, max_sequences=8), Tally()
    answer_all(bench, specs, questions)
    assert bench.preempted
    assert len(bench.steps) < 2000
    for spec, question in zip(specs, questions, strict=True):
        pair.oracle.compare(question, bench.tokens[spec.key], tally)
    tally.check()


def test_embeddings_that_arrive_late_and_one_by_one(pair: Pair) -> None:
    question = pair.question(7, num_text=40, pictures=[(112, 112), (60, 60), (150, 80)])
    spec = make_spec(pair.oracle.family, question, "r")
    bench, tally = Bench(pair.model), Tally()
    embeddings = bench.embed(spec, question)
    bench.engine.add_prefill(spec, hand_over=False)
    for item in (1, 0, 2):
        bench.run()
        missing = min(
            span.first_token for span in spec.media if span.item_index >= (item if item != 1 else 0)
        )
        assert sum(part.num_tokens for step in bench.steps for part in step.prefilled) == missing
        assert not bench.tokens
        assert bench.engine.provide_embedding(spec.key, item, embeddings[item])
    bench.run()
    pair.oracle.compare(question, bench.tokens[spec.key], tally)
    tally.check()


@pytest.mark.parametrize("num_given", [1, 50, 127])
def test_going_on_from_outputs(pair: Pair, num_given: int) -> None:
    question = pair.question(2, num_text=30, pictures=[(200, 90)])
    given = pair.oracle.answer(question, 128).tokens[:num_given]
    spec = make_spec(pair.oracle.family, question, "r", outputs=given)
    bench, tally = Bench(pair.model, max_batch_tokens=16, max_sequences=4), Tally()
    answer_all(bench, [spec], [question])
    indices = [token.index for step in bench.steps for token in step.tokens]
    assert indices == list(range(num_given, 128))
    pair.oracle.compare(question, [*given, *bench.tokens[spec.key]], tally)
    tally.check()


def test_abort_mid_way_frees_at_once_and_disturbs_no_one(first: Pair) -> None:
    questions = [first.question(seed) for seed in range(2)]
    specs = [make_spec(first.oracle.family, q, f"r{i}") for i, q in enumerate(questions)]
    bench, tally = Bench(first.model), Tally()
    for spec, question in zip(specs, questions, strict=True):
        bench.start(spec, question)
    for _ in range(10):
        bench.step()
    held = bench.blocks.num_free
    assert bench.engine.abort(specs[1].key)
    assert bench.blocks.num_free > held
    bench.run()
    assert len(bench.tokens[specs[1].key]) == 10
    first.oracle.compare(questions[0], bench.tokens[specs[0].key], tally)
    tally.check()


def test_stop_token_and_length(first: Pair) -> None:
    question = first.question(0)
    tokens = first.oracle.answer(question, 128).tokens
    stop = tokens[20]
    from dataclasses import replace

    spec = replace(make_spec(first.oracle.family, question, "r"), stop_token_ids=frozenset({stop}))
    bench = Bench(first.model)
    answer_all(
        bench, [spec, make_spec(first.oracle.family, question, "s", max_tokens=5)], [question, question]
    )
    last = {token.key[0]: token for step in bench.steps for token in step.tokens}
    assert (last["r"].finish, last["r"].index) == (FinishReason.STOP, tokens.index(stop))
    assert (last["s"].finish, last["s"].index) == (FinishReason.LENGTH, 4)


def test_decode_that_loses_its_blocks_asks_for_its_pictures(first: Pair) -> None:
    """A decode server never saw them: when blocks run out it gives its own back and asks."""
    question = first.question(3, num_text=20, pictures=[(112, 112)])
    spec = make_spec(first.oracle.family, question, "r", outputs=(1,))
    bench = Bench(first.model, num_blocks=4)
    blocks = bench.blocks.allocate(4)
    bench.engine.add_decode(spec, blocks, len(spec.prompt))
    bench.run()
    assert bench.preempted == [spec.key]
    assert bench.needed == [(spec.key, (0,))]
    assert bench.blocks.num_free == 4
    assert not any(step.failed for step in bench.steps)


def test_prompt_that_could_never_fit_is_refused(first: Pair) -> None:
    bench = Bench(first.model, num_blocks=2)
    spec = make_spec(first.oracle.family, first.question(0, num_text=33), "r")
    with pytest.raises(ValueError, match="prompt: 33 tokens"):
        bench.engine.add_prefill(spec, hand_over=False)


def test_the_same_sequence_twice_is_refused(first: Pair) -> None:
    bench = Bench(first.model)
    spec = make_spec(first.oracle.family, first.question(0), "r")
    bench.engine.add_prefill(spec, hand_over=False)
    with pytest.raises(ValueError, match="request_id"):
        bench.engine.add_prefill(spec, hand_over=False)


def test_embedding_of_the_wrong_size_is_refused(first: Pair) -> None:
    bench = Bench(first.model)
    question = first.question(3, pictures=[(112, 112)])
    spec = make_spec(first.oracle.family, question, "r")
    bench.engine.add_prefill(spec, hand_over=False)
    (embedding,) = bench.embed(spec, question)
    with pytest.raises(ValueError, match="embedding"):
        bench.engine.provide_embedding(spec.key, 0, embedding[1:])
    with pytest.raises(ValueError, match="item_index"):
        bench.engine.provide_embedding(spec.key, 1, embedding)
    assert not bench.engine.provide_embedding(("gone", 0), 0, embedding)
