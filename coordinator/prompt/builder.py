"""One conversation to one prompt: rendered, tokenized, and safe against smuggled control tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

from coordinator.calls import ChatMessage
from coordinator.errors import InvalidFieldError
from coordinator.prompt.template import ChatTemplate, TemplateError, TemplateMessage, load_template
from coordinator.prompt.tokenizer import PromptTokenizer, load_tokenizer

# Longer texts are tokenized off the event loop: about a millisecond's work.
_LONG_TEXT_CHARS = 4096
# Private characters that stand for the first letters of control tokens' names.
_STAND_INS = range(0x100000, 0x10FFFE)


class PromptBuilder:
    def __init__(self, template: ChatTemplate, tokenizer: PromptTokenizer) -> None:
        self._template = template
        self.tokenizer = tokenizer

    async def build(self, messages: tuple[ChatMessage, ...]) -> list[int]:
        """Token ids with one placeholder per picture. Raises InvalidFieldError("messages")."""
        if sum(map(len, _texts(messages))) > _LONG_TEXT_CHARS:
            return await asyncio.to_thread(self.build_now, messages)
        return self.build_now(messages)

    def build_now(self, messages: tuple[ChatMessage, ...]) -> list[int]:
        text = self._render(messages, lambda part: part)
        if self._is_harmless(messages, text):
            return self.tokenizer.encode(text)
        return self._build_guarded(messages)

    def _is_harmless(self, messages: tuple[ChatMessage, ...], text: str) -> bool:
        """Whether all control tokens in the prompt are the template's own."""
        if not any(self.tokenizer.find_added(part) for part in _joined_texts(messages)):
            return True
        bare = self._render(messages, lambda _: "x")
        return _names(self.tokenizer, bare) == _names(self.tokenizer, text)

    def _build_guarded(self, messages: tuple[ChatMessage, ...]) -> list[int]:
        """Control tokens of the template alone; a user's spelling of one is encoded as text.

        The user's copies of the letters that begin control tokens are exchanged
        for characters that nobody uses, until the template's tokens are found.
        """
        away, back = self._stand_ins(messages)
        text = self._render(messages, lambda part: part.translate(away))
        token_ids: list[int] = []
        position = 0
        for match in self.tokenizer.find_added(text):
            token_ids += self.tokenizer.encode_plain(text[position : match.start()].translate(back))
            token_ids.append(self.tokenizer.added_tokens[match.group()])
            position = match.end()
        return token_ids + self.tokenizer.encode_plain(text[position:].translate(back))

    def _stand_ins(self, messages: tuple[ChatMessage, ...]) -> tuple[dict[int, int], dict[int, int]]:
        used = {ord(letter) for part in _texts(messages) for letter in part}
        first_letters = sorted({ord(name[0]) for name in self.tokenizer.added_tokens})
        free = (code for code in _STAND_INS if code not in used)
        away = dict(zip(first_letters, free, strict=False))
        return away, {code: letter for letter, code in away.items()}

    def _render(self, messages: tuple[ChatMessage, ...], change: Callable[[str], str]) -> str:
        try:
            return self._template.render([self._to_template(message, change) for message in messages])
        except TemplateError as error:
            raise InvalidFieldError("messages", f"the model's chat template says: {error}") from error

    def _to_template(self, message: ChatMessage, change: Callable[[str], str]) -> TemplateMessage:
        if not self._template.takes_parts:
            return {
                "role": message.role,
                "content": "".join(change(part.text or "") for part in message.parts),
            }
        content = [
            {"type": "image"} if part.image is not None else {"type": "text", "text": change(part.text or "")}
            for part in message.parts
        ]
        return {"role": message.role, "content": content}


def load_builder(folder: Path) -> PromptBuilder:
    """Raises ValueError naming what the model folder lacks."""
    return PromptBuilder(load_template(folder), load_tokenizer(folder))


def _texts(messages: tuple[ChatMessage, ...]) -> Iterable[str]:
    return (part.text for message in messages for part in message.parts if part.text)


def _joined_texts(messages: tuple[ChatMessage, ...]) -> Iterable[str]:
    """Of each message, as a name may be spelt across two parts."""
    return ("".join(part.text or "" for part in message.parts) for message in messages)


def _names(tokenizer: PromptTokenizer, text: str) -> list[str]:
    return [match.group() for match in tokenizer.find_added(text)]
