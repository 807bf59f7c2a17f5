"""Log probabilities in the forms of chats and of completions."""

from __future__ import annotations

from typing import Any

from coordinator.events import TokensEvent
from coordinator.openai.token_texts import TokenTexts

_LEAST = -9999.0  # JSON has no infinity; OpenAI's value for "never"


def chat_logprobs(event: TokensEvent, texts: TokenTexts) -> dict[str, Any]:
    tokens = zip(event.token_ids, event.logprobs, strict=True)
    content = [
        _entry(token_id, each.logprob, texts)
        | {"top_logprobs": [_entry(other, logprob, texts) for other, logprob in each.top]}
        for token_id, each in tokens
    ]
    return {"content": content, "refusal": None}


class CompletionLogprobs:
    """Those of one choice so far; `text_offset` counts the characters of the tokens before."""

    def __init__(self, texts: TokenTexts) -> None:
        self._texts = texts
        self._offset = 0
        self._all = _no_logprobs()

    def push(self, event: TokensEvent) -> dict[str, Any]:
        """What this event adds."""
        added = _no_logprobs()
        for token_id, each in zip(event.token_ids, event.logprobs, strict=True):
            text = self._texts.text_of(token_id)
            top = {self._texts.text_of(other): _finite(logprob) for other, logprob in each.top}
            added["tokens"].append(text)
            added["token_logprobs"].append(_finite(each.logprob))
            added["top_logprobs"].append(top | {text: _finite(each.logprob)})
            added["text_offset"].append(self._offset)
            self._offset += len(text)
        for name, values in added.items():
            self._all[name] += values
        return added

    def whole(self) -> dict[str, Any]:
        return self._all


def _no_logprobs() -> dict[str, list[Any]]:
    return {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}


def _entry(token_id: int, logprob: float, texts: TokenTexts) -> dict[str, Any]:
    return {
        "token": texts.text_of(token_id),
        "logprob": _finite(logprob),
        "bytes": list(texts.bytes_of(token_id)),
    }


def _finite(logprob: float) -> float:
    return max(logprob, _LEAST)
