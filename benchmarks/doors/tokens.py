"""Which tokens played instances answer with, and how many of them a text holds."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

TEXT_LENGTH = 4  # of every token that is played, so that a text tells how many it holds


def tokens_to_play(model: Path) -> list[int]:
    """Ids whose texts have as many characters, none that JSON escapes. ValueError if there are none."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    found = [
        token_id
        for token_id in range(tokenizer.get_vocab_size())
        if len(text := tokenizer.decode([token_id])) == TEXT_LENGTH
        and text.strip().isalpha()
        and text.isascii()
    ]
    if not found:
        raise ValueError(f"{model}: no token has a text of {TEXT_LENGTH} letters")
    return found
