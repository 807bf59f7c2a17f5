"""How single tokens read."""

from __future__ import annotations

import pytest

from coordinator.prompt.token_bytes import token_bytes
from coordinator.prompt.tokenizer import PromptTokenizer, load_tokenizer
from tests.coordinator.conftest import CHECKPOINT


@pytest.fixture(scope="module")
def tokenizer() -> PromptTokenizer:
    return load_tokenizer(CHECKPOINT)


@pytest.mark.parametrize("text", ["plain words", "näher", "図 🙂"])
def test_tokens_of_a_text_are_its_bytes(tokenizer: PromptTokenizer, text: str) -> None:
    assert b"".join(token_bytes(tokenizer, each) for each in tokenizer.encode(text)) == text.encode()


def test_control_tokens_are_named(tokenizer: PromptTokenizer) -> None:
    for name, token_id in tokenizer.added_tokens.items():
        assert token_bytes(tokenizer, token_id) == name.encode()


def test_what_is_no_token_is_nothing(tokenizer: PromptTokenizer) -> None:
    assert token_bytes(tokenizer, 2**32 - 1) == b""
