"""Pieces together are the whole text, and no piece shows half a character or a stop string."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.detokenizer import Detokenizer, StopMatcher
from coordinator.prompt.tokenizer import PromptTokenizer, load_tokenizer
from tests.coordinator.conftest import CHECKPOINT

TOKENIZER: PromptTokenizer = load_tokenizer(CHECKPOINT)


def pieces_of(token_ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(TOKENIZER.decode, TOKENIZER.whole_text)
    return [*(detokenizer.push(token_id) for token_id in token_ids), detokenizer.flush()]


@given(st.text(max_size=40))
def test_text_comes_back(text: str) -> None:
    assert "".join(pieces_of(TOKENIZER.encode_plain(text))) == text


@given(st.lists(st.integers(0, 700), max_size=60))
def test_any_tokens_equal_the_whole_decode(token_ids: list[int]) -> None:
    assert "".join(pieces_of(token_ids)) == TOKENIZER.decode(token_ids)


@pytest.mark.parametrize("text", ["a€b", "😀😀", "नमस्ते", "e\u0301", "👩‍👩‍👧"])
def test_no_piece_is_half_a_character(text: str) -> None:
    token_ids = TOKENIZER.encode_plain(text)
    assert len(token_ids) > len(text) / 2
    assert all("\ufffd" not in piece for piece in pieces_of(token_ids))


def test_bytes_that_are_no_text_do_not_grow_the_work() -> None:
    (lead, *_) = TOKENIZER.encode_plain("€")
    lengths: list[int] = []

    def decode(token_ids: list[int]) -> str:
        lengths.append(len(token_ids))
        return TOKENIZER.decode(token_ids)

    detokenizer = Detokenizer(decode)
    text = "".join(detokenizer.push(lead) for _ in range(2000)) + detokenizer.flush()
    assert max(lengths) < 600
    assert set(text) == {"\ufffd"}
    assert len(text) == 2000


def shown(stops: list[str], pieces: list[str]) -> tuple[str, str | None]:
    """As a request sees it: after a match nothing more is pushed."""
    matcher, text = StopMatcher(stops), ""
    for piece in pieces:
        text += matcher.push(piece)
        if matcher.matched is not None:
            return text, matcher.matched
    return text + matcher.flush(), None


@pytest.mark.parametrize(
    ("stops", "pieces", "expected"),
    [
        (["END"], ["one E", "N", "D two"], ("one ", "END")),
        (["END"], ["one E", "NT", "D two"], ("one ENTD two", None)),
        (["aab"], ["a", "a", "a", "b", "c"], ("a", "aab")),
        (["b", "abc"], ["abc"], ("", "abc")),
        (["ab", "abc"], ["xabc"], ("x", "abc")),
        (["\n\n"], ["line\n", "\nmore"], ("line", "\n\n")),
        (["stop"], ["sto"], ("sto", None)),
        ([], ["any", "thing"], ("anything", None)),
    ],
)
def test_stop_strings(stops: list[str], pieces: list[str], expected: tuple[str, str | None]) -> None:
    assert shown(stops, pieces) == expected


@given(st.lists(st.text("ab", min_size=1, max_size=3), max_size=12), st.text("ab", min_size=1, max_size=3))
def test_cut_at_the_first_match_however_it_arrives(pieces: list[str], stop: str) -> None:
    whole = "".join(pieces)
    before, found, _ = whole.partition(stop)
    assert shown([stop], pieces) == (before, stop if found else None)
