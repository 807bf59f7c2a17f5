"""Texts of a wanted number of tokens, different for every request."""

from __future__ import annotations

import random
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
        words: list[str] = []
        while self.count(" ".join(words)) < num_tokens:
            words += rng.choices(_WORDS, k=max(1, num_tokens - self.count(" ".join(words))))
        while words and self.count(" ".join(words)) > num_tokens:
            words.pop()
        return self._fill(" ".join(words), num_tokens)

    def _fill(self, text: str, num_tokens: int) -> str:
        while self.count(text) < num_tokens and self.count(text + " a") <= num_tokens:
            text += " a"
        return text
