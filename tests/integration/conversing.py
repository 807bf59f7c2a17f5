"""Conversations with pictures, turn by turn, and the same as transformers sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.exactness import Question, make_picture
from tests.integration.asking import SIZES, make_words


@dataclass(frozen=True)
class Conversation:
    """What users and assistant said so far; the last message is the user's."""

    messages: tuple[tuple[str, tuple[str | bytes, ...]], ...]  # role and parts

    def to_send(self) -> list[dict[str, Any]]:
        return [
            {
                "role": role,
                "content": [
                    {"type": "text", "text": part}
                    if isinstance(part, str)
                    else {"type": "image", "image": part}
                    for part in parts
                ],
            }
            for role, parts in self.messages
        ]

    @property
    def pictures(self) -> tuple[bytes, ...]:
        return tuple(part for _, parts in self.messages for part in parts if isinstance(part, bytes))

    def question(self, tokenizer: Any) -> Question:
        """As transformers' own template and tokenizer make it, one placeholder per picture."""
        messages = [
            {
                "role": role,
                "content": [
                    {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
                    for part in parts
                ],
            }
            for role, parts in self.messages
        ]
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return Question(tuple(tokenizer(text, add_special_tokens=False)["input_ids"]), self.pictures)


def make_conversation(seed: int, num_turns: int) -> list[Conversation]:
    """Every turn's request: each has all turns before it, and most bring a picture; the last one shows the
    first picture again.
    """
    rng = np.random.default_rng(seed)
    turns: list[Conversation] = []
    messages: list[tuple[str, tuple[str | bytes, ...]]] = []
    for number in range(num_turns):
        parts: list[str | bytes] = [make_words(rng)]
        if number % 3 != 1:
            width, height = SIZES[int(rng.integers(len(SIZES)))]
            parts += [make_picture(rng, width, height), make_words(rng)]
        if number == num_turns - 1:
            parts.append(turns[0].pictures[0])
        messages.append(("user", tuple(parts)))
        turns.append(Conversation(tuple(messages)))
        messages.append(("assistant", (make_words(rng),)))
    return turns


def num_different(conversations: Sequence[Conversation]) -> int:
    """Pictures that differ."""
    return len({picture for each in conversations for picture in each.pictures})
