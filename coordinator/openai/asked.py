"""One HTTP call, understood: the internal calls to make and what becomes of their events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from coordinator.calls import GenerateCall
from coordinator.events import FinishedEvent, TokensEvent
from coordinator.openai.params import Param
from coordinator.openai.schema import StreamOptions


class Answer(Protocol):
    """All choices of one call; chats and completions differ in it.

    `push` with each event of a choice in order, `finish` once per choice, then perhaps `whole`.
    """

    id_prefix: str
    object_name: str
    chunk_name: str

    def begin(self, index: int) -> dict[str, Any] | None:
        """The choice in a stream's first chunk, None where there is nothing to say yet."""
        ...

    def push(self, index: int, event: TokensEvent) -> dict[str, Any] | None:
        """The choice in a stream's next chunk, None where nothing can be shown yet."""
        ...

    def finish(self, index: int, event: FinishedEvent) -> dict[str, Any]:
        """The choice in a stream's last chunk."""
        ...

    def whole(self, index: int) -> dict[str, Any]:
        """The finished choice."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    name: str  # of the whole call; each choice's request has a number behind it
    calls: tuple[GenerateCall, ...]  # one per choice, all choices of a prompt after each other
    num_per_prompt: int
    answer: Answer
    param: Param
    is_stream: bool
    stream_options: StreamOptions | None

    @property
    def wants_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def wants_usage_always(self) -> bool:
        return bool(self.stream_options and self.stream_options.continuous_usage_stats)
