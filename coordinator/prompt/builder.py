"""One conversation to one prompt: rendered, tokenized, and safe against smuggled control tokens."""

from __future__ import annotations

import asyncio
from pathlib import Path

from coordinator.calls import ChatMessage, Tool
from coordinator.errors import InvalidFieldError
from coordinator.prompt.conversation import Change, Conversation
from coordinator.prompt.template import ChatTemplate, TemplateError, load_template
from coordinator.prompt.tokenizer import PromptTokenizer, load_tokenizer

# Longer texts are tokenized off the event loop: about a millisecond's work.
_LONG_TEXT_CHARS = 4096
_MANY_PIECES = 64  # messages and what is in them, as much work to render
# Private characters that stand for the first letters of control tokens' names.
_STAND_INS = range(0x100000, 0x10FFFE)


class PromptBuilder:
    def __init__(self, template: ChatTemplate, tokenizer: PromptTokenizer) -> None:
        self._template = template
        self.tokenizer = tokenizer

    async def build(self, messages: tuple[ChatMessage, ...], tools: tuple[Tool, ...] = ()) -> list[int]:
        """Token ids with one placeholder per picture. Raises InvalidFieldError("messages"), or naming the
        tools or tool calls that the template has no place for.
        """
        talk = Conversation(messages, tools)
        if talk.num_chars > _LONG_TEXT_CHARS or talk.num_pieces > _MANY_PIECES:
            return await asyncio.to_thread(self._build, talk)
        return self._build(talk)

    def build_now(self, messages: tuple[ChatMessage, ...], tools: tuple[Tool, ...] = ()) -> list[int]:
        return self._build(Conversation(messages, tools))

    async def build_raw(self, text: str) -> list[int]:
        """Without template; names of control tokens become control tokens."""
        if len(text) > _LONG_TEXT_CHARS:
            return await asyncio.to_thread(self.tokenizer.encode_whole, text)
        return self.tokenizer.encode_whole(text)

    def _build(self, talk: Conversation) -> list[int]:
        text = self._render(talk, lambda part: part)
        self._check_is_shown(talk, text)
        if not any(self.tokenizer.find_added(part) for part in talk.joined_texts):
            return self.tokenizer.encode(text)
        return self._build_guarded(talk, text)

    def _check_is_shown(self, talk: Conversation, text: str) -> None:
        if talk.tools and self._render(talk.without_tools(), lambda part: part) == text:
            raise InvalidFieldError("tools", "the model's chat template has no place for tools")
        place = talk.first_with_calls
        if place is not None and self._render(talk.without_calls(), lambda part: part) == text:
            raise InvalidFieldError(
                f"messages[{place}].tool_calls", "the model's chat template has no place for tool calls"
            )

    def _build_guarded(self, talk: Conversation, text: str) -> list[int]:
        """Control tokens of the template alone; a user's spelling of one is encoded as text.

        The user's copies of the letters that begin control tokens are exchanged
        for characters that nobody uses, until the template's tokens are found.
        `text`: as the template shows it, which holds where it has dropped the user's spellings.
        """
        away, back = self._stand_ins(talk)
        guarded = self._render(talk, lambda part: part.translate(away))
        if _names(self.tokenizer, guarded) == _names(self.tokenizer, text):
            return self.tokenizer.encode(text)
        token_ids: list[int] = []
        position = 0
        for match in self.tokenizer.find_added(guarded):
            token_ids += self.tokenizer.encode_plain(guarded[position : match.start()].translate(back))
            token_ids.append(self.tokenizer.added_tokens[match.group()])
            position = match.end()
        return token_ids + self.tokenizer.encode_plain(guarded[position:].translate(back))

    def _stand_ins(self, talk: Conversation) -> tuple[dict[int, int], dict[int, int]]:
        used = {ord(letter) for part in talk.texts for letter in part}
        first_letters = sorted({ord(name[0]) for name in self.tokenizer.added_tokens})
        free = (code for code in _STAND_INS if code not in used)
        away = dict(zip(first_letters, free, strict=False))
        return away, {code: letter for letter, code in away.items()}

    def _render(self, talk: Conversation, change: Change) -> str:
        messages = talk.template_messages(change, takes_parts=self._template.takes_parts)
        try:
            return self._template.render(messages, talk.template_tools(change))
        except TemplateError as error:
            raise InvalidFieldError("messages", f"the model's chat template says: {error}") from error


def load_builder(folder: Path) -> PromptBuilder:
    """Raises ValueError naming what the model folder lacks."""
    return PromptBuilder(load_template(folder), load_tokenizer(folder))


def _names(tokenizer: PromptTokenizer, text: str) -> list[str]:
    return [match.group() for match in tokenizer.find_added(text)]
