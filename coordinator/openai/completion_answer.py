"""Events of a completion's choices as OpenAI's texts."""

from __future__ import annotations

from typing import Any

from coordinator.events import FinishedEvent, TokensEvent
from coordinator.openai.logprobs import CompletionLogprobs
from coordinator.openai.token_texts import TokenTexts


class CompletionAnswer:
    """See `asked.Answer`; a stream's chunks have the form of the whole."""

    id_prefix = "cmpl-"
    object_name = "text_completion"
    chunk_name = "text_completion"

    def __init__(self, num_choices: int, texts: TokenTexts | None) -> None:
        """`texts` None: without log probabilities."""
        self._texts: list[list[str]] = [[] for _ in range(num_choices)]
        self._finish: list[str | None] = [None] * num_choices
        self._logprobs = [None if texts is None else CompletionLogprobs(texts) for _ in range(num_choices)]

    def begin(self, index: int) -> dict[str, Any] | None:  # noqa: ARG002  (see asked.Answer)
        return None

    def push(self, index: int, event: TokensEvent) -> dict[str, Any] | None:
        logprobs = self._logprobs[index]
        added = None if logprobs is None else logprobs.push(event)
        self._texts[index].append(event.text)
        return _choice(index, event.text, added, None) if event.text or added else None

    def finish(self, index: int, event: FinishedEvent) -> dict[str, Any]:
        self._finish[index] = event.reason.value
        return _choice(index, "", None, event.reason.value)

    def whole(self, index: int) -> dict[str, Any]:
        logprobs = self._logprobs[index]
        shown = None if logprobs is None else logprobs.whole()
        return _choice(index, "".join(self._texts[index]), shown, self._finish[index])


def _choice(
    index: int, text: str, logprobs: dict[str, Any] | None, finish_reason: str | None
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}
