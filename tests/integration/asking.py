"""Questions that are asked over the wire, and the same as transformers sees them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from elasticmm_client import Client, GenerateResult
from tests.exactness import Question, make_picture

SIZES = ((112, 112), (140, 84), (56, 168))


@dataclass(frozen=True)
class Asked:
    """One user message: pictures and texts in turn."""

    parts: tuple[str | bytes, ...]

    @property
    def messages(self) -> list[dict[str, Any]]:
        content = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part}
            for part in self.parts
        ]
        return [{"role": "user", "content": content}]

    @property
    def pictures(self) -> tuple[bytes, ...]:
        return tuple(part for part in self.parts if isinstance(part, bytes))

    def question(self, tokenizer: Any) -> Question:
        """As transformers' own template and tokenizer make it, one placeholder per picture."""
        content = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
            for part in self.parts
        ]
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        return Question(tuple(tokenizer(text, add_special_tokens=False)["input_ids"]), self.pictures)


def make_questions(seed: int, count: int) -> list[Asked]:
    """Text only, one picture, and two or three pictures between texts, in turn."""
    rng = np.random.default_rng(seed)
    return [_make(rng, num_pictures=(0, 1, 2 + index % 2)[index % 3]) for index in range(count)]


def _make(rng: np.random.Generator, num_pictures: int) -> Asked:
    parts: list[str | bytes] = [make_words(rng)]
    for _ in range(num_pictures):
        width, height = SIZES[int(rng.integers(len(SIZES)))]
        parts += [make_picture(rng, width, height), make_words(rng)]
    return Asked(tuple(parts))


def make_words(rng: np.random.Generator) -> str:
    words = ("what", "colour", "is", "the", "large", "circle", "näher", "図", "left", "of", "42", "?")
    return " ".join(words[int(index)] for index in rng.integers(len(words), size=int(rng.integers(2, 20))))


def tokenizer_of(model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model)


def ask_all(client: Client, asked: Sequence[Asked], **options: Any) -> list[GenerateResult]:
    """All at once, so that they share batches."""
    with ThreadPoolExecutor(len(asked)) as threads:
        return list(threads.map(lambda each: client.generate(each.messages, **options).result(), asked))
