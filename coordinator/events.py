"""What a client is told while its request runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

from core.sequence import FinishReason, TokenLogprobs
from core.stages import Stage

# So that a client that was behind is not given more at once than it can show smoothly.
MOST_EVENT_TOKENS = 8


@dataclass(frozen=True, slots=True)
class AcceptedEvent:
    request_id: str
    model: str
    seed: int
    prompt_tokens: int


class TokensEvent(NamedTuple):
    """At most MOST_EVENT_TOKENS consecutive tokens from `first_index` on, and the text they complete.

    A tuple, to be made quickly.
    """

    first_index: int
    token_ids: tuple[int, ...]
    text: str
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(frozen=True, slots=True)
class StageSpan:
    """Which instance did what when; milliseconds since the request's arrival."""

    stage: Stage
    instance_id: str
    start_ms: float
    end_ms: float
    transport: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int
    media_tokens: int
    cached_tokens: int
    cached_media: int = 0  # items that did not have to be encoded


@dataclass(frozen=True, slots=True)
class FinishedEvent:
    reason: FinishReason
    stop_string: str
    usage: Usage
    stages: tuple[StageSpan, ...]


Event = AcceptedEvent | TokensEvent | FinishedEvent

Emit = Callable[[Event], Awaitable[None]]  # hands an event to whoever asked
