"""Texts of a wanted number of tokens, different for every request."""

from __future__ import annotations

import random
from bisect import bisect_right
from pathlib import Path

from tokenizers import Tokenizer

_SENTENCE = (
    "the small red circle stands left of a large green square while two blue triangles lie above "
    "it and nobody counts how many yellow stars there are on the dark noisy picture today because "
    "every question asks for another answer about colour shape size number and place"
)
_WORDS = _SENTENCE.split()


class TextMaker:
    """Counts tokens as the served model does."""

    def __init__(self, model: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))

    def count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def make(self, num_tokens: int, rng: random.Random) -> str:
        """As many tokens as wanted, or the nearest number below that words allow."""
        words = rng.choices(_WORDS, k=num_tokens)  # enough: each is one token at least

        def tokens_of(num_words: int) -> int:
            return self.count(" ".join(words[:num_words]))

        most = bisect_right(range(num_tokens + 1), num_tokens, key=tokens_of) - 1
        return self._fill(" ".join(words[:most]), num_tokens)

    def _fill(self, text: str, num_tokens: int) -> str:
        while self.count(text) < num_tokens and self.count(text + " a") <= num_tokens:
            text += " a"
        return text
