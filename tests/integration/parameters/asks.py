"""One question in the terms of the Python client, and how an answer looks whatever door it came through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

GRPC, CHAT, COMPLETION, OIP = "grpc", "chat", "completion", "oip"
DOORS = (GRPC, CHAT, COMPLETION, OIP)

WORDS = "what is left of the large circle?"
GREEDY: dict[str, Any] = {"max_tokens": 40, "ignore_eos": True}
OF_A_FORM: dict[str, Any] = {"max_tokens": 200}  # an end token ends it


@dataclass(frozen=True)
class Ask:
    """`options` are the Python client's; `own` are fields that this door alone has."""

    options: Mapping[str, Any] = field(default_factory=dict)
    messages: Any = WORDS  # read by completions through the chat template
    own: Mapping[str, Any] = field(default_factory=dict)

    def for_door(self, door: str, where: str) -> Ask:
        """With a door's and a cluster's own name in the place of "%s"."""
        name = f"{door}-{where}"
        options = {
            key: value % name if isinstance(value, str) and "%s" in value else value
            for key, value in self.options.items()
        }
        return Ask(options, self.messages, self.own)


@dataclass(frozen=True)
class Answer:
    """What a check may look at. An error has a code as gRPC names it, and the field that it names."""

    text: str = ""
    finish: str = ""
    num_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    request_id: str = ""
    logprobs: tuple[int, ...] = ()  # of each token: how many alternatives
    error: str = ""
    named: str = ""
    raw: Any = None  # as the door has it
    token_ids: tuple[int, ...] = ()  # where the door tells them
