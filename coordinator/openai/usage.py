"""What a call used, summed up over its choices."""

from __future__ import annotations

from typing import Any

from coordinator.events import AcceptedEvent, FinishedEvent, TokensEvent


class UsageCount:
    """A prompt counts once, however many choices it has."""

    def __init__(self, num_per_prompt: int) -> None:
        self._num_per_prompt = num_per_prompt
        self._prompt_tokens = 0
        self._cached_tokens = 0
        self._cached_media = 0
        self._completion_tokens = 0

    def push(self, index: int, event: AcceptedEvent | TokensEvent | FinishedEvent) -> None:
        is_first = index % self._num_per_prompt == 0
        match event:
            case AcceptedEvent():
                self._prompt_tokens += event.prompt_tokens if is_first else 0
            case TokensEvent():
                self._completion_tokens += len(event.token_ids)
            case FinishedEvent():
                self._cached_tokens += event.usage.cached_tokens if is_first else 0
                self._cached_media += event.usage.cached_media if is_first else 0

    def to_json(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": self._completion_tokens,
            "total_tokens": self._prompt_tokens + self._completion_tokens,
            "prompt_tokens_details": {
                "cached_tokens": self._cached_tokens,
                "cached_media": self._cached_media,  # OpenAI has no such field
            },
        }
