"""What checks compare with: plain answers, the model's own words, and what the cluster tells of itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.families import load_family
from elasticmm_client import AdminClient
from tests.integration.asking import tokenizer_of
from tests.integration.parameters.asks import WORDS, Answer
from tests.integration.running import Running


@dataclass(frozen=True)
class Seen:
    running: Running
    model: Any  # its folder
    tokenizer: Any  # transformers'
    plain: Answer  # over gRPC
    drawn: Answer

    @property
    def rendered(self) -> str:
        return self.render([{"role": "user", "content": WORDS}])

    @property
    def prompt_ids(self) -> list[int]:
        return list(self.tokenizer(self.rendered, add_special_tokens=False)["input_ids"])

    @property
    def eos(self) -> int:
        (eos,) = load_family(self.model).eos_token_ids
        return eos

    def render(self, messages: Any, tools: Any = None) -> str:
        return render(self.tokenizer, messages, tools)

    def num_tokens(self, messages: Any, tools: Any = None) -> int:
        text = self.render(messages, tools)
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def picture_tokens(self, width: int, height: int, max_pixels: int | None) -> int:
        return load_family(self.model).layout(width, height, max_pixels).num_tokens

    def token_of(self, letter: str) -> int:
        (token,) = self.tokenizer(letter)["input_ids"]
        return int(token)

    def has_class(self, tenant: str, priority: str) -> bool:
        """Whether the SLO report has calls of the tenant in the class of priority, and in no other."""
        token = (self.running.state_dir / "token").read_text().strip()
        with AdminClient(self.running.address, token) as admin:
            classes = admin.slo_report().windows[-1].classes
        return [each.priority for each in classes if each.tenant == tenant] == [priority]

    def resumed(self, request_id: str) -> str:
        return self.running.client.resume(request_id).result().text


def render(tokenizer: Any, messages: Any, tools: Any = None) -> str:
    """As transformers renders it, where arguments are objects."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    shown = [
        each | {"tool_calls": _parsed(each["tool_calls"])} if "tool_calls" in each else each
        for each in messages
    ]
    return str(tokenizer.apply_chat_template(shown, tools=tools, add_generation_prompt=True, tokenize=False))


def seen_at(running: Running, model: Any, plain: Answer, drawn: Answer) -> Seen:
    return Seen(running, model, tokenizer_of(model), plain, drawn)


def _parsed(calls: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        call | {"function": call["function"] | {"arguments": json.loads(call["function"]["arguments"])}}
        for call in calls
    ]
