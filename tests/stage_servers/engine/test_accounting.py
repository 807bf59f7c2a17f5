"""Blocks are all accounted for through any order of arrivals, aborts and steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.sampling import SamplingParams
from core.sequence import MediaSpan, SequenceSpec
from stage_servers.engine.sequence import Sequence
from tests.stage_servers.engine.conftest import Pair
from tests.stage_servers.engine.harness import Bench

moves = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 60), st.integers(1, 12), st.booleans(), st.booleans()),
        st.tuples(st.just("adopt"), st.integers(1, 20), st.integers(2, 12)),
        st.tuples(st.just("embed"), st.integers(0, 9)),
        st.tuples(st.just("abort"), st.integers(0, 9)),
        st.tuples(st.just("step"), st.integers(1, 6)),
    ),
    max_size=25,
)


class World:
    """An engine with few blocks, driven by moves; follows what it is told by the outputs."""

    def __init__(self, pair: Pair) -> None:
        self.bench = Bench(pair.model, num_blocks=12, block_tokens=8, max_batch_tokens=24, max_sequences=4)
        self.specs: list[SequenceSpec] = []
        self.open: dict[tuple[str, int], int] = {}  # outputs so far

    def add(self, num_prompt: int, max_tokens: int, has_picture: bool, hand_over: bool) -> None:
        media = ()
        if has_picture and num_prompt > 4:
            media = (MediaSpan(0, num_prompt - 4, 4, (1, 4, 4), bytes(32)),)
        spec = SequenceSpec(str(len(self.specs)), 0, (7,) * num_prompt, SamplingParams(max_tokens), media)
        self.bench.engine.add_prefill(spec, hand_over=hand_over)
        self.specs.append(spec)
        self.open[spec.key] = 0

    def adopt(self, num_prompt: int, max_tokens: int) -> None:
        needed = -(-num_prompt // 8)
        if needed > self.bench.blocks.num_free:
            return
        spec = SequenceSpec(
            str(len(self.specs)), 0, (7,) * num_prompt, SamplingParams(max_tokens), outputs=(9,)
        )
        self.bench.engine.add_decode(spec, self.bench.blocks.allocate(needed), num_prompt)
        self.specs.append(spec)
        self.open[spec.key] = 1

    def embed(self, place: int) -> None:
        if place < len(self.specs) and self.specs[place].media:
            embedding = torch.zeros(4, self.bench.model.embedding_width)
            self.bench.engine.provide_embedding(self.specs[place].key, 0, embedding)

    def abort(self, place: int) -> None:
        if place < len(self.specs):
            key = self.specs[place].key
            assert self.bench.engine.abort(key) == (self.open.pop(key, None) is not None)

    def step(self, times: int) -> None:
        for _ in range(times):
            out = self.bench.step()
            for token in out.tokens:
                assert token.index == self.open[token.key]
                self.open[token.key] += 1
                if token.finish is not None:
                    del self.open[token.key]
            for failure in out.failed:
                del self.open[failure.key]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=moves)
def test_random_moves(first: Pair, moves: list[tuple[str, int]]) -> None:
    world = World(first)
    for name, *arguments in moves:
        getattr(world, name)(*arguments)
        world.bench.engine.check_integrity()
    for place in range(len(world.specs)):
        world.embed(place)
    for _ in range(500):
        for key in [token.key for step in world.bench.steps for token in step.tokens if token.handed_over]:
            if key in world.open:
                world.bench.engine.release(key)
                del world.open[key]
        if not world.open:
            break
        world.step(1)
    assert not world.open
    assert not world.bench.engine.has_work
    assert world.bench.blocks.num_free == world.bench.blocks.num_blocks


def test_first_come_first_served_under_short_blocks(first: Pair) -> None:
    bench = Bench(first.model, num_blocks=8, block_tokens=8, max_batch_tokens=64, max_sequences=4)
    base = SequenceSpec("a", 0, (7,) * 40, SamplingParams(4))
    for name, num_prompt in (("a", 40), ("b", 60), ("c", 8)):
        spec = replace(base, request_id=name, prompt=(7,) * num_prompt)
        bench.engine.add_prefill(spec, hand_over=False)
    bench.run()
    firsts = [token.key[0] for step in bench.steps for token in step.tokens if token.index == 0]
    assert firsts == ["a", "b", "c"]


def test_the_load_can_be_read_while_sequences_come(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(pair.model)
    specs = [SequenceSpec(name, 0, (7,) * 9, SamplingParams(4)) for name in "abc"]
    later = iter(specs[1:])

    def waiting(sequence: Sequence) -> int:
        """In the midst of it another one comes, as from the engine's own thread."""
        for spec in later:
            bench.engine.add_prefill(spec, hand_over=False)
            break
        return len(sequence.tokens) - sequence.num_computed

    bench.engine.add_prefill(specs[0], hand_over=False)
    monkeypatch.setattr(Sequence, "num_pending", property(waiting))
    first = bench.engine.load
    assert (first.num_prefilling, first.num_decoding, first.prefill_waiting_tokens) == (1, 0, 9)
    monkeypatch.undo()
    assert bench.engine.load.num_prefilling == len(specs) - len([*later])
