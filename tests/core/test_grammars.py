"""Formats become masks over the model's own tokens, and what cannot be followed is refused."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from coordinator.prompt.tokenizer import load_tokenizer
from core.families import load_family
from core.grammars import FormatError, Grammars
from core.output_format import FormatKind, OutputFormat
from tests.coordinator.conftest import CHECKPOINT

FAMILY = load_family(CHECKPOINT)
TOKENIZER = load_tokenizer(CHECKPOINT)
GRAMMARS = Grammars(CHECKPOINT, FAMILY.vocab_size, FAMILY.eos_token_ids)
SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "blau"]}, "count": {"type": "integer", "maximum": 99}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}


def form(kind: str, text: str = "") -> OutputFormat:
    return OutputFormat(FormatKind(kind), text)


def wander(one: OutputFormat, seed: int, outputs: list[int]) -> str:
    """Goes on with `outputs`, any allowed token being as good as another, until the answer ends."""
    rng, matcher = np.random.default_rng(seed), GRAMMARS.matcher(one)
    for _ in range(400):
        allowed = np.flatnonzero(matcher.allowed(outputs))
        token = int(rng.choice(allowed))
        if token in FAMILY.eos_token_ids:
            return TOKENIZER.decode(outputs)
        outputs.append(token)
    raise AssertionError(f"no end: {TOKENIZER.decode(outputs)}")


@pytest.mark.parametrize("seed", range(5))
def test_any_answer_fits_the_schema(seed: int) -> None:
    answer = json.loads(wander(form("json_schema", json.dumps(SCHEMA)), seed, []))
    assert answer.keys() == {"colour", "count"}
    assert answer["colour"] in ("red", "blau")
    assert isinstance(answer["count"], int)


@pytest.mark.parametrize("seed", range(5))
def test_any_answer_fits_the_expression_and_the_grammar(seed: int) -> None:
    assert re.fullmatch("[ab]{2,4}é", wander(form("regex", "[ab]{2,4}é"), seed, []))
    assert wander(form("grammar", 'start: "yes" | "no" " "? "!"'), seed, []) in ("yes", "no!", "no !")


def test_the_end_is_allowed_exactly_where_the_grammar_may_end() -> None:
    (eos,) = FAMILY.eos_token_ids
    (a,) = TOKENIZER.encode("a")
    matcher = GRAMMARS.matcher(form("regex", "a{2,3}"))
    assert [bool(matcher.allowed([a] * count)[eos]) for count in range(4)] == [False, False, True, True]
    assert np.flatnonzero(matcher.allowed([a] * 3)).tolist() == [eos]


def test_a_matcher_that_begins_later_allows_the_same() -> None:
    one = form("json_schema", json.dumps(SCHEMA))
    outputs: list[int] = []
    wander(one, 3, outputs)
    going_on = GRAMMARS.matcher(one)
    for count in range(len(outputs)):
        beginning = GRAMMARS.matcher(one)
        assert (going_on.allowed(outputs[:count]) == beginning.allowed(outputs[:count])).all()


def test_matchers_of_one_format_do_not_disturb_each_other() -> None:
    one = form("regex", "ab")
    (a,) = TOKENIZER.encode("a")
    first = GRAMMARS.matcher(one).allowed([])
    GRAMMARS.matcher(one).allowed([a])
    assert (GRAMMARS.matcher(one).allowed([]) == first).all()


@pytest.mark.parametrize(
    "one",
    [
        form("json_schema", '{"type": "foo"}'),
        form("json_schema", '{"type": "integer", "minimum": 5, "maximum": 1}'),
        form("json_schema", '{"$ref": "http://localhost/x"}'),
        form("regex", "(a"),
        form("grammar", "start: nothing"),
    ],
)
def test_what_cannot_be_compiled(one: OutputFormat) -> None:
    with pytest.raises(FormatError):
        GRAMMARS.matcher(one)


def test_tokens_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(FormatError):
        GRAMMARS.matcher(form("regex", "a")).allowed(TOKENIZER.encode("bb"))


def test_only_so_many_are_kept() -> None:
    grammars = Grammars(CHECKPOINT, FAMILY.vocab_size, FAMILY.eos_token_ids)
    for number in range(40):
        grammars.matcher(form("regex", f"a{{{number + 1}}}"))
    assert len(grammars._kept) == 16


def test_a_model_without_end_token() -> None:
    with pytest.raises(FormatError, match="end token"):
        Grammars(CHECKPOINT, FAMILY.vocab_size, frozenset()).matcher(form("regex", "a"))


@pytest.mark.parametrize(
    "one",
    [
        form("regex", "(a{99}){99}{99}"),
        form("regex", "x{999999999}"),
        form("json_schema", json.dumps({"type": "string", "pattern": "^(a{999}){999}$"})),
        form("grammar", 'start: C\nA: "a"{99}\nB: A{99}\nC: B{99}'),
    ],
    ids=str,
)
def test_what_would_take_too_long_is_not_begun(one: OutputFormat) -> None:
    with pytest.raises(FormatError, match="when its repeats are written out"):
        GRAMMARS.matcher(one)


def test_a_format_is_recalled_while_it_is_among_the_last_used() -> None:
    grammars = Grammars(CHECKPOINT, FAMILY.vocab_size, FAMILY.eos_token_ids)
    assert not grammars.recall(form("regex", "a"))
    grammars.matcher(form("regex", "a"))
    for number in range(15):
        grammars.matcher(form("regex", f"b{number}"))
    assert grammars.recall(form("regex", "a"))
    grammars.matcher(form("regex", "c"))
    assert [bool(grammars.recall(form("regex", text))) for text in ("a", "b0", "b1")] == [True, False, True]


def test_a_tenant_with_many_formats_takes_nobody_elses() -> None:
    grammars = Grammars(CHECKPOINT, FAMILY.vocab_size, FAMILY.eos_token_ids)
    mine = grammars.compile(form("regex", "a"), "few")
    for number in range(20):
        grammars.compile(form("regex", f"b{number}"), "many")
    assert grammars.compile(form("regex", "a"), "few") is mine
    assert grammars.recall(form("regex", "b0"), "many") is None
