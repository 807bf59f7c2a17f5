"""A decoding sequence can be frozen between two steps, and goes on here or elsewhere with the same tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.sequence import SequenceSpec
from stage_servers.engine.records import DecodeState, NotDecoding
from tests.exactness import Question, Tally, make_spec
from tests.stage_servers.engine.conftest import Pair
from tests.stage_servers.engine.harness import Bench, answer_all

PENALTIES = {"temperature": 1.1, "presence_penalty": 0.6, "frequency_penalty": 0.2, "repetition_penalty": 1.1}


def started(pair: Pair, bench: Bench, **shape: object) -> tuple[SequenceSpec, Question]:
    question = pair.question(5, num_text=30, **shape)
    spec = make_spec(pair.oracle.family, question, "r")
    bench.start(spec, question)
    return spec, question


def run_steps(bench: Bench, count: int) -> None:
    for _ in range(count):
        bench.step()


def move(spec: SequenceSpec, source: Bench, target: Bench) -> None:
    """As a migration does it: everything from the frozen state, nothing else."""
    state = source.engine.freeze(spec.key)
    blocks = target.blocks.allocate(-(-state.num_tokens // 16))
    for mine, theirs in zip(state.block_ids, blocks, strict=False):
        target.pool[:, theirs] = source.pool[:, mine]
    target.engine.add_decode(replace(spec, outputs=state.outputs), blocks, state.num_tokens)
    assert source.engine.release(spec.key)


@pytest.mark.parametrize("sampling", [{}, PENALTIES], ids=["greedy", "penalties"])
def test_moved_back_and_forth(pair: Pair, sampling: dict[str, float]) -> None:
    benches = Bench(pair.model), Bench(pair.model)
    question = pair.question(5, num_text=30, pictures=[(112, 112), (90, 60)])
    spec = make_spec(pair.oracle.family, question, "r", seed=3, **sampling)
    others = [make_spec(pair.oracle.family, pair.question(n), f"o{n}", max_tokens=500) for n in (1, 2)]
    for bench, other in zip(benches, others, strict=True):
        bench.start(other, pair.question(int(other.request_id[1:])))
    benches[0].start(spec, question)
    tokens: list[int] = []
    for turn, steps in enumerate((3, 16, 29, 1, 17, 5, 90)):
        here, there = benches[turn % 2], benches[(turn + 1) % 2]
        run_steps(here, steps)
        tokens += here.tokens.pop(spec.key, [])
        if len(tokens) < 128:
            move(spec, here, there)
    assert len(tokens) == 128
    alone = Bench(pair.model)
    answer_all(alone, [spec], [question])
    assert tokens == alone.tokens[spec.key]


def test_frozen_it_stands_still_and_keeps_its_blocks(first: Pair) -> None:
    bench = Bench(first.model)
    spec, question = started(first, bench)
    run_steps(bench, 20)
    state = bench.engine.freeze(spec.key)
    assert (state.num_tokens, len(state.outputs)) == (len(spec.prompt) + 19, 20)
    assert state.block_ids == tuple(bench.engine.block_ids(spec.key))
    assert state.most_tokens == len(spec.prompt) + 127
    assert not bench.engine.has_work
    assert bench.engine.load.num_decoding == 0
    bench.step()
    assert len(bench.tokens[spec.key]) == 20
    assert bench.engine.resume(spec.key)
    bench.run()
    tally = Tally()
    first.oracle.compare(question, bench.tokens[spec.key], tally)
    tally.check()


def test_frozen_it_is_no_victim(first: Pair) -> None:
    bench = Bench(first.model, num_blocks=8)
    spec, _ = started(first, bench)
    run_steps(bench, 4)
    bench.engine.freeze(spec.key)
    other = make_spec(first.oracle.family, first.question(8, num_text=60), "other")
    bench.start(other, first.question(8, num_text=60))
    for _ in range(200):
        bench.step()
    assert spec.key not in bench.preempted
    assert bench.engine.abort(spec.key)
    bench.run()
    assert bench.blocks.num_free == bench.blocks.num_blocks


def test_preemption_shows_in_the_state(first: Pair) -> None:
    questions = [first.question(seed, num_text=20) for seed in range(4)]
    specs = [make_spec(first.oracle.family, q, f"r{i}") for i, q in enumerate(questions)]
    bench = Bench(first.model, num_blocks=24)
    states: dict[object, list[DecodeState]] = {spec.key: [] for spec in specs}
    for spec, question in zip(specs, questions, strict=True):
        bench.start(spec, question)
    while bench.engine.has_work:
        bench.step()
        for spec in specs:
            try:
                states[spec.key].append(bench.engine.decode_state(spec.key))
            except NotDecoding:
                continue
    assert bench.preempted
    for key, seen in states.items():
        assert (seen[-1].num_restarts > seen[0].num_restarts) == (key in bench.preempted)


def test_what_does_not_decode_cannot_be_frozen(first: Pair) -> None:
    bench = Bench(first.model)
    with pytest.raises(NotDecoding, match="not here"):
        bench.engine.freeze(("nobody", 0))
    spec, _ = started(first, bench)
    with pytest.raises(NotDecoding, match="prefilled"):
        bench.engine.freeze(spec.key)
    run_steps(bench, 2)
    bench.engine.freeze(spec.key)
    with pytest.raises(NotDecoding, match="stands still"):
        bench.engine.freeze(spec.key)
    assert bench.engine.resume(spec.key)
    assert not bench.engine.resume(spec.key)


def test_a_handed_over_sequence_is_not_resumed(first: Pair) -> None:
    bench, question = Bench(first.model), first.question(1)
    spec = make_spec(first.oracle.family, question, "r")
    bench.start(spec, question, hand_over=True)
    bench.run()
    assert not bench.engine.resume(spec.key)
    with pytest.raises(NotDecoding):
        bench.engine.freeze(spec.key)
    assert bench.engine.release(spec.key)


def test_a_moved_picture_sequence_that_loses_its_blocks_asks_for_its_picture(first: Pair) -> None:
    source, target = Bench(first.model), Bench(first.model, num_blocks=4)
    spec, _ = started(first, source, pictures=[(56, 56)])
    run_steps(source, 6)
    move(spec, source, target)
    target.run()
    assert target.preempted == [spec.key]
    assert target.needed == [(spec.key, (0,))]
    assert target.blocks.num_free == 4
