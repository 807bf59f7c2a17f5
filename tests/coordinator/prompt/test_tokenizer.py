"""Token ids are those of the library's plain way, whatever the text."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from coordinator.prompt.tokenizer import load_tokenizer
from tests.coordinator.conftest import CHECKPOINT

TOKENIZER = load_tokenizer(CHECKPOINT)
LIBRARY = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))


@given(st.text(max_size=200))
@example("")
@example("<|im_start|>user\nhi <|image_pad|><|im_end|>\n")
def test_ids_are_the_librarys(text: str) -> None:
    assert TOKENIZER.encode(text) == LIBRARY.encode(text, add_special_tokens=False).ids
    assert TOKENIZER.encode_whole(text) == LIBRARY.encode(text).ids


@pytest.mark.parametrize("name", list(TOKENIZER.added_tokens))
def test_a_control_tokens_name_is_only_a_name_where_it_should_be(name: str) -> None:
    token_ids = TOKENIZER.encode_plain(f"a{name}b")
    assert TOKENIZER.added_tokens[name] not in token_ids
    assert TOKENIZER.decode(token_ids) == f"a{name}b"
