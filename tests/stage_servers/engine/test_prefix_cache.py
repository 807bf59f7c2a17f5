"""Answers with a prefix from the cache are those without one, and the cache was used for them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.sequence import CacheUse
from stage_servers.cache.settings import CacheSettings
from tests.exactness import Tally
from tests.stage_servers.engine.cached import ON, answered, ask, longer, pictured
from tests.stage_servers.engine.conftest import Pair
from tests.stage_servers.engine.harness import Bench, answer_all


def test_a_prompt_that_comes_again_is_computed_from_its_last_whole_block_on(pair: Pair) -> None:
    bench, question = Bench(pair.model, cache=ON), pair.question(1, num_text=70)
    assert answered(bench, pair, ask(pair, question, "a"), question) == 0
    again = ask(pair, question, "b")
    assert answered(bench, pair, again, question) == 64
    assert bench.tokens["a", 0] == bench.tokens["b", 0]


@pytest.mark.parametrize("num_text", [64, 65, 80])
def test_the_last_token_is_always_computed(first: Pair, num_text: int) -> None:
    bench, question = Bench(first.model, cache=ON), first.question(2, num_text=num_text)
    answered(bench, first, ask(first, question, "a"), question)
    num_cached = answered(bench, first, ask(first, question, "b"), question)
    assert num_text - 17 < num_cached < num_text


def test_the_next_turn_goes_on_from_the_answer(pair: Pair) -> None:
    bench, question = Bench(pair.model, cache=ON), pair.question(3, num_text=20, pictures=[(112, 112)])
    spec = ask(pair, question, "a", max_tokens=50)
    answered(bench, pair, spec, question)
    turn = longer(question, [*bench.tokens["a", 0], 5, 6, 7])
    following = ask(pair, turn, "b")
    num_cached = answered(bench, pair, following, turn, embeds=False)
    assert num_cached == len(spec.prompt) + 49  # all that has KV: the last block is a begun one
    assert num_cached % 16


def test_two_prompts_part_within_a_block(pair: Pair) -> None:
    bench, question = Bench(pair.model, cache=ON), pair.question(4, num_text=41)
    answered(bench, pair, ask(pair, question, "a", max_tokens=1), question)
    other = replace(question, token_ids=(*question.token_ids[:38], 9, 9, 9, 9))
    assert answered(bench, pair, ask(pair, other, "b"), other) == 38
    assert answered(bench, pair, ask(pair, question, "c"), question) == 40  # nobody wrote into its block


def test_a_picture_in_the_prefix_needs_no_embedding(pair: Pair) -> None:
    bench, question = Bench(pair.model, cache=ON), pictured(pair)
    spec = ask(pair, question, "a")
    answered(bench, pair, spec, question)
    assert answered(bench, pair, ask(pair, question, "b"), question, embeds=False) > spec.media[0].end_token


def test_another_picture_in_the_same_text_is_another_prompt(pair: Pair) -> None:
    bench, question = Bench(pair.model, cache=ON), pictured(pair)
    other = replace(question, pictures=pair.question(6, pictures=[(112, 112)]).pictures)
    spec, others = ask(pair, question, "a"), ask(pair, other, "b")
    assert spec.prompt == others.prompt
    answered(bench, pair, spec, question)
    assert answered(bench, pair, others, other) == spec.media[0].first_token // 16 * 16


@pytest.mark.parametrize("use", [CacheUse(bytes([1] * 32), "ours"), None])
def test_who_has_another_salt_or_none_finds_nothing(first: Pair, use: CacheUse | None) -> None:
    bench, question = Bench(first.model, cache=ON), first.question(6, num_text=60)
    answered(bench, first, ask(first, question, "a"), question)
    assert answered(bench, first, ask(first, question, "b", use=use), question) == 0


def test_without_a_cache_nothing_is_kept(first: Pair) -> None:
    bench, question = Bench(first.model), first.question(6, num_text=60)
    answered(bench, first, ask(first, question, "a"), question)
    assert bench.blocks.num_free == bench.blocks.num_blocks
    assert answered(bench, first, ask(first, question, "b"), question) == 0


def test_of_a_sequence_that_is_not_to_be_cached_nothing_is_kept(first: Pair) -> None:
    bench, question = Bench(first.model, cache=ON), first.question(6, num_text=60)
    answered(bench, first, ask(first, question, "a", use=None), question)
    assert bench.blocks.num_free == bench.blocks.num_blocks
    assert not bench.kept


def test_nothing_of_a_picture_without_identity_is_kept(first: Pair) -> None:
    bench, question = Bench(first.model, cache=ON), pictured(first)
    spec = ask(first, question, "a")
    unknown = replace(spec, media=tuple(replace(span, identity=b"") for span in spec.media))
    answered(bench, first, unknown, question)
    again = replace(unknown, request_id="b")
    assert answered(bench, first, again, question) == spec.media[0].first_token // 16 * 16


def test_prompts_that_run_at_a_time_share_what_the_first_has_filled(pair: Pair) -> None:
    bench = Bench(pair.model, cache=ON, max_batch_tokens=32)
    questions = [longer(pair.question(7, num_text=80), [number] * 6) for number in range(3)]
    specs = [ask(pair, question, f"r{number}") for number, question in enumerate(questions)]
    answer_all(bench, specs, questions)
    assert all(bench.num_computed(spec) < len(spec.prompt) for spec in specs[1:])
    tally = Tally()
    for spec, question in zip(specs, questions, strict=True):
        pair.oracle.compare(question, bench.tokens[spec.key], tally)
    tally.check()


def test_what_others_need_goes_and_what_is_asked_for_stays(pair: Pair) -> None:
    bench = Bench(pair.model, cache=CacheSettings("lru"), num_blocks=16)
    questions = [pair.question(seed, num_text=64) for seed in range(10, 14)]
    for turn, question in enumerate([questions[0], questions[1], questions[2], questions[0], questions[3]]):
        bench.clock.advance(1)
        answered(bench, pair, ask(pair, question, f"r{turn}"), question)
    assert bench.cache is not None
    assert bench.cache.book.stats.dropped_for_room > 0
    assert answered(bench, pair, ask(pair, questions[3], "again"), questions[3]) > 0


def test_a_prefix_goes_to_the_host_and_comes_back(pair: Pair) -> None:
    block_bytes = Bench(pair.model, cache=ON, num_blocks=1).pool.nbytes
    bench = Bench(pair.model, cache=CacheSettings(host_bytes=40 * block_bytes), num_blocks=12)
    questions = [pair.question(seed, num_text=70, pictures=[(60, 60)]) for seed in range(20, 23)]
    specs = [ask(pair, question, f"r{number}") for number, question in enumerate(questions)]
    for spec, question in zip(specs, questions, strict=True):
        answered(bench, pair, spec, question)
    assert bench.cache is not None
    assert bench.cache.book.stats.demoted > 0
    for number, question in enumerate(questions):
        bench.clock.advance(1)
        again = ask(pair, question, f"again{number}")
        assert answered(bench, pair, again, question, embeds=False) >= len(again.prompt) // 16 * 16
    assert bench.cache.book.stats.promoted > 0


def test_who_was_preempted_finds_what_is_left_of_its_kv(pair: Pair) -> None:
    questions = [pair.question(seed, num_text=20, pictures=[(112, 112)] * (seed % 2)) for seed in range(4)]
    specs = [ask(pair, q, f"r{i}", max_tokens=128) for i, q in enumerate(questions)]
    bench, tally = Bench(pair.model, num_blocks=24, max_batch_tokens=32, max_sequences=8, cache=ON), Tally()
    answer_all(bench, specs, questions)
    assert bench.preempted
    assert bench.cache is not None
    assert bench.cache.book.stats.hits > 0
    for spec, question in zip(specs, questions, strict=True):
        pair.oracle.compare(question, bench.tokens[spec.key], tally)
    tally.check()


def test_what_a_decode_instance_was_sent_is_kept_there_once(pair: Pair) -> None:
    source, target = Bench(pair.model), Bench(pair.model, cache=ON)
    question = pair.question(8, num_text=70)
    for name in "ab":
        spec = ask(pair, question, name)
        source.start(spec, question, hand_over=True)
        (token,) = source.step().tokens
        blocks = target.blocks.allocate(5)
        target.pool[:, blocks] = source.pool[:, source.engine.block_ids(spec.key)]
        target.engine.add_decode(replace(spec, outputs=(token.token_id,)), blocks, len(spec.prompt))
        target.engine.check_integrity()
        assert target.blocks.num_blocks - target.blocks.num_free == 5 + 3 * (name == "b")
        source.engine.release(spec.key)
        target.run()
        tally = Tally()
        pair.oracle.compare(question, [token.token_id, *target.tokens[spec.key]], tally)
        tally.check()
    assert answered(target, pair, ask(pair, question, "c"), question) == 64


def test_items_that_were_promised_and_are_not_cached_are_asked_for_once(first: Pair) -> None:
    bench, question = Bench(first.model, cache=ON), pictured(first, 2)
    spec = ask(first, question, "a")
    promised = spec.media[0].end_token
    bench.engine.add_prefill(spec, hand_over=False, promised_tokens=promised)
    bench.run()
    assert bench.needed == [(spec.key, (spec.media[0].item_index,))]
    bench.provide(spec, question)
    bench.run()
    again = ask(first, question, "b")
    bench.engine.add_prefill(again, hand_over=False, promised_tokens=spec.media[1].end_token)
    bench.run()
    assert len(bench.needed) == 1
    assert bench.tokens["a", 0] == bench.tokens["b", 0]


def test_a_prefix_that_goes_while_its_prompt_waits_is_asked_for(first: Pair) -> None:
    bench, question = Bench(first.model, cache=ON), pictured(first)
    spec = ask(first, question, "a")
    answered(bench, first, spec, question)
    again = ask(first, question, "b")
    bench.engine.add_prefill(again, hand_over=False, promised_tokens=spec.media[0].end_token)
    assert not bench.needed
    bench.engine.flush_cache()
    assert bench.needed == [(again.key, (0,))]
    bench.provide(again, question)
    bench.run()
    assert bench.tokens["a", 0] == bench.tokens["b", 0]


@pytest.mark.parametrize("is_flushed", [False, True])
def test_who_was_spared_its_picture_can_be_preempted(pair: Pair, is_flushed: bool) -> None:
    """What it needs then, it asks for, if the cache has let go of its prefix."""
    bench = Bench(pair.model, cache=ON, num_blocks=24)
    question, other = pictured(pair), pair.question(9, num_text=60)
    answered(bench, pair, ask(pair, question, "first", max_tokens=1), question)
    texts, spared = ask(pair, other, "texts", max_tokens=200), ask(pair, question, "spared", max_tokens=128)
    bench.start(texts, other)
    bench.engine.add_prefill(spared, hand_over=False, promised_tokens=spared.media[0].end_token)
    assert not bench.needed
    while not bench.preempted:
        assert bench.engine.has_work
        bench.step()
    assert set(bench.preempted) == {spared.key}
    assert bench.engine._sequences[spared.key].num_cached > spared.media[0].end_token  # known at once
    if is_flushed:
        bench.engine.flush_cache()
        assert bench.needed
    bench.run()
    if bench.needed:
        assert bench.needed == [(spared.key, (0,))]
        bench.provide(spared, question)
        bench.run()
    tally = Tally()
    pair.oracle.compare(question, bench.tokens[spared.key], tally)
    pair.oracle.compare(other, bench.tokens[texts.key], tally)
    tally.check()
    assert not [failure for step in bench.steps for failure in step.failed]
    assert bench.num_held == 0


def test_an_empty_cache_gives_all_blocks_back(first: Pair) -> None:
    bench, question = Bench(first.model, cache=ON), first.question(6, num_text=60)
    spec, other = ask(first, question, "a"), ask(first, question, "b", use=CacheUse(bytes(32), "theirs"))
    answered(bench, first, spec, question)
    assert len(bench.kept) == (60 + 39) // 16
    bench.engine.add_prefill(other, hand_over=False)
    bench.step()
    bench.engine.flush_cache("theirs")
    bench.engine.flush_cache("ours")
    assert not bench.kept
    bench.run()
    assert bench.blocks.num_free == bench.blocks.num_blocks
    bench.engine.check_integrity()


def test_what_went_unused_for_long_is_not_found(first: Pair) -> None:
    bench, question = Bench(first.model, cache=CacheSettings(ttl_s=10)), first.question(6, num_text=60)
    answered(bench, first, ask(first, question, "a"), question)
    bench.clock.advance(5)
    assert answered(bench, first, ask(first, question, "b"), question) > 0
    bench.clock.advance(11)
    assert answered(bench, first, ask(first, question, "c"), question) == 0


def test_who_waits_elsewhere_gets_what_sequences_let_go_of(first: Pair) -> None:
    bench, question = Bench(first.model, cache=ON, num_blocks=8), first.question(6, num_text=60)
    spec = ask(first, question, "a")
    bench.start(spec, question)
    bench.step()
    bench.engine.make_room(8)
    assert bench.blocks.num_free < 8
    bench.run()
    assert bench.blocks.num_free == 8


def test_kv_that_is_no_number_is_not_kept(first: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, question = Bench(first.model, cache=ON, max_batch_tokens=32), first.question(6, num_text=60)
    bench.start(ask(first, question, "a"), question)
    bench.step()
    assert bench.kept
    monkeypatch.setattr("stage_servers.engine.engine.sample", lambda logits, rows: [None] * len(rows))  # noqa: ARG005
    bench.run()
    assert bench.steps[-1].failed
    assert not bench.kept
    assert bench.blocks.num_free == bench.blocks.num_blocks
