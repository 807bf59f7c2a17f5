"""Answers keep to their format whatever happens to their sequences, and are those of undisturbed ones."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest

from coordinator.prompt.tokenizer import load_tokenizer
from core.grammars import Mask, Matcher
from core.output_format import FormatKind, OutputFormat
from core.sequence import FinishReason, SequenceSpec
from tests.exactness import make_spec
from tests.stage_servers.engine.conftest import Pair
from tests.stage_servers.engine.harness import Bench, answer_all

SCHEMA = {
    "type": "object",
    "properties": {
        "what": {"type": "string", "pattern": "^[a-z ]{30,40}$"},
        "where": {"type": "array", "items": {"enum": ["left", "right"]}, "minItems": 9, "maxItems": 9},
    },
    "required": ["what", "where"],
    "additionalProperties": False,
}
FORM = OutputFormat(FormatKind.JSON_SCHEMA, json.dumps(SCHEMA))


def formatted(pair: Pair, seed: int, form: OutputFormat = FORM, **sampling: object) -> SequenceSpec:
    family = pair.oracle.family
    question = pair.question(seed, num_text=20)
    blanks = sorted(load_tokenizer(pair.path).encode(blank)[0] for blank in " \t\r\n")
    biases = tuple((token, -100.0) for token in blanks)  # else they are most of a random answer
    sampling = {"max_tokens": 300, "temperature": 1.0, "seed": seed, "logit_bias": biases} | sampling
    spec = make_spec(family, question, f"r{seed}", **sampling)  # type: ignore[arg-type]
    return replace(spec, format=form, stop_token_ids=family.eos_token_ids)


def answers(bench: Bench, pair: Pair, specs: list[SequenceSpec]) -> list[list[int]]:
    answer_all(bench, specs, [pair.question(int(spec.request_id[1:]), num_text=20) for spec in specs])
    return [bench.tokens[spec.key] for spec in specs]


class Held:
    """In the place of Matcher.allowed: notes the threads, and holds up the mask after so many outputs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, held_after: int = -1) -> None:
        self.threads: set[str] = set()  # that made masks after the first
        self.may_go = threading.Event()
        allowed = Matcher.allowed

        def hold(matcher: Matcher, outputs: list[int]) -> Mask:
            if outputs:
                self.threads.add(threading.current_thread().name)
            if len(outputs) == held_after:
                assert self.may_go.wait(60)
            return allowed(matcher, outputs)

        monkeypatch.setattr(Matcher, "allowed", hold)


def test_masks_are_made_beside_the_engine(first: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch)
    answers(Bench(first.model), first, [formatted(first, 0)])
    assert held.threads
    assert all(name.startswith("masks") for name in held.threads)


def test_a_mask_that_is_late_holds_nobody_else_up(first: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [formatted(first, 0), make_spec(first.oracle.family, first.question(1, num_text=20), "r1")]
    undisturbed = answers(Bench(first.model), first, specs)
    held, bench = Held(monkeypatch, held_after=10), Bench(first.model)
    for spec in specs:
        bench.start(spec, first.question(int(spec.request_id[1:]), num_text=20))
    while len(bench.tokens.get(specs[1].key, ())) < 128:
        bench.step()
    assert len(bench.tokens[specs[0].key]) == 10
    assert any(step.late == (specs[0].key,) for step in bench.steps)
    assert bench.engine.has_work
    assert bench.step().num_tokens == 0
    held.may_go.set()
    bench.run()
    assert [bench.tokens[spec.key] for spec in specs] == undisturbed
    assert bench.num_held == 0


def test_the_end_of_a_prompt_waits_for_nobodys_mask(first: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although all who make masks are busy with others'."""
    held, bench = Held(monkeypatch, held_after=10), Bench(first.model)
    specs = [formatted(first, seed) for seed in range(3)]
    for spec in specs[:2]:
        bench.start(spec, first.question(int(spec.request_id[1:]), num_text=20))
    while any(len(bench.tokens.get(spec.key, ())) < 10 for spec in specs[:2]):
        bench.step()  # some without a token, where a mask takes longer than a step
    while bench.step().num_tokens:
        pass
    assert [len(bench.tokens[spec.key]) for spec in specs[:2]] == [10, 10]
    bench.start(specs[2], first.question(2, num_text=20))
    while not bench.tokens.get(specs[2].key):
        bench.step()
    held.may_go.set()
    bench.run()
    assert bench.num_held == 0


def test_one_that_waits_for_its_mask_may_leave(first: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    held, bench, spec = Held(monkeypatch, held_after=10), Bench(first.model), formatted(first, 0)
    bench.start(spec, first.question(0, num_text=20))
    while not bench.steps or not bench.steps[-1].late:
        bench.step()
    assert bench.engine.freeze(spec.key).outputs == tuple(bench.tokens[spec.key])
    assert bench.engine.abort(spec.key)
    held.may_go.set()
    bench.engine.check_integrity()
    assert bench.num_held == 0


def test_answers_parse_and_end(first: Pair) -> None:
    bench, tokenizer = Bench(first.model), load_tokenizer(first.path)
    for tokens in answers(bench, first, [formatted(first, seed) for seed in range(4)]):
        answer = json.loads(tokenizer.decode(tokens))
        assert len(answer["where"]) == 9
        assert tokens[-1] in first.oracle.family.eos_token_ids
    assert {token.finish for step in bench.steps for token in step.tokens} == {None, FinishReason.STOP}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_preemption_changes_nothing(first: Pair, temperature: float) -> None:
    specs = [formatted(first, seed, temperature=temperature) for seed in range(4)]
    undisturbed = answers(Bench(first.model), first, specs)
    short = Bench(first.model, num_blocks=24, max_batch_tokens=32, max_sequences=8)
    assert answers(short, first, specs) == undisturbed
    assert short.preempted


@pytest.mark.parametrize("num_given", [1, 20, 60])
def test_going_on_elsewhere_changes_nothing(first: Pair, num_given: int) -> None:
    spec = formatted(first, 2)
    (whole,) = answers(Bench(first.model), first, [spec])
    going_on = replace(spec, outputs=tuple(whole[:num_given]))
    assert answers(Bench(first.model), first, [going_on]) == [whole[num_given:]]


def test_max_tokens_cuts_short(first: Pair) -> None:
    bench = Bench(first.model)
    (tokens,) = answers(bench, first, [formatted(first, 0, max_tokens=9)])
    assert len(tokens) == 9
    assert bench.steps[-1].tokens[-1].finish is FinishReason.LENGTH


def test_the_end_token_alone_where_nothing_else_may_come(first: Pair) -> None:
    tokenizer = load_tokenizer(first.path)
    (tokens,) = answers(
        Bench(first.model), first, [formatted(first, 0, OutputFormat(FormatKind.REGEX, "ab"))]
    )
    assert tokenizer.decode(tokens[:-1]) == "ab"


def test_what_does_not_compile_is_refused(first: Pair) -> None:
    bench = Bench(first.model)
    spec = formatted(first, 0, OutputFormat(FormatKind.REGEX, "("))
    with pytest.raises(ValueError, match="regex"):
        bench.engine.add_prefill(spec, hand_over=False)
    assert not bench.engine.has_work


def test_outputs_that_do_not_fit_fail_alone_with_the_field(first: Pair) -> None:
    bench = Bench(first.model)
    spec = replace(formatted(first, 0, OutputFormat(FormatKind.REGEX, "ab")), outputs=(5, 6))
    other = formatted(first, 1)
    for each in (spec, other):
        bench.engine.add_prefill(each, hand_over=False)
    bench.run()
    (failure,) = [failure for step in bench.steps for failure in step.failed]
    assert (failure.key, failure.field, failure.is_retryable) == (spec.key, "format.regex", False)
    assert bench.tokens[other.key]
    assert bench.num_held == 0
