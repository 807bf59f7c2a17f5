"""The table: what each parameter is sent as, and what shows that it had its effect."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.exactness import make_picture
from tests.integration.parameters.asks import (
    CHAT,
    COMPLETION,
    DOORS,
    GREEDY,
    GRPC,
    OF_A_FORM,
    OIP,
    WORDS,
    Answer,
    Ask,
)
from tests.integration.parameters.grpc_doors import INLINE
from tests.integration.parameters.http_doors import data_url
from tests.integration.parameters.seen import Seen

Holds = Callable[[Answer, Seen], bool]
Options = Mapping[str, Any]
HTTP = (CHAT, COMPLETION)
CHATTING = (GRPC, CHAT, OIP)  # with messages
DRAWN: dict[str, Any] = {"temperature": 2.5, "seed": 11}


@dataclass(frozen=True)
class Row:
    """`holds` is true of the answer with the parameter, and false of that to `base` (None: there is none).

    `make` makes the options from what was seen before. `is_same`: every door's answer is that of gRPC.
    """

    holds: Holds
    options: Options = field(default_factory=dict)
    base: Options | None = field(default_factory=dict)
    doors: tuple[str, ...] = DOORS
    messages: Any = WORDS
    own: Options = field(default_factory=dict)
    make: Callable[[Seen], Options] | None = None
    is_same: bool = True

    def ask(self, seen: Seen) -> Ask:
        options = self.options if self.make is None else self.make(seen)
        general = OF_A_FORM if "format" in options else GREEDY
        return Ask(general | dict(options), self.messages, self.own)

    def base_ask(self) -> Ask | None:
        return None if self.base is None else Ask(GREEDY | dict(self.base), WORDS)


def _repeats(answer: Answer) -> int:
    return len(answer.token_ids) - len(set(answer.token_ids))


def _is_penalised(one: Answer, seen: Seen) -> bool:
    """Not every door tells token ids; but all have the same text."""
    return one.text != seen.plain.text and _repeats(one) <= _repeats(seen.plain)


def _is_plain(one: Answer, seen: Seen) -> bool:
    return one.text == seen.plain.text


def _is_cold(one: Answer, _: Seen) -> bool:
    return one.num_tokens == GREEDY["max_tokens"] and one.cached_tokens == 0


SAMPLING = {
    "max_tokens": Row(lambda one, _: (one.num_tokens, one.finish) == (7, "length"), {"max_tokens": 7}),
    "temperature": Row(lambda one, seen: one.text != seen.plain.text, DRAWN),
    "seed": Row(lambda one, seen: one.text != seen.drawn.text, DRAWN | {"seed": 12}, DRAWN),
    "top_k": Row(_is_plain, DRAWN | {"top_k": 1}, DRAWN),
    "top_p": Row(_is_plain, DRAWN | {"top_p": 1e-6}, DRAWN),
    "min_p": Row(_is_plain, DRAWN | {"min_p": 1.0}, DRAWN),
    "presence_penalty": Row(_is_penalised, {"presence_penalty": 2.0}),
    "frequency_penalty": Row(_is_penalised, {"frequency_penalty": 2.0}),
    "repetition_penalty": Row(_is_penalised, {"repetition_penalty": 10.0}),
    "logprobs": Row(lambda one, _: len(one.logprobs) == 40 and max(one.logprobs) >= 3, {"logprobs": 3}),
    "logit_bias": Row(lambda one, _: one.text == one.text[:1] * 40, {"logit_bias": {65: 100.0}}),
}


def _stop_string(seen: Seen) -> str:
    return seen.plain.text[10:13]


def _stop_token(seen: Seen) -> int:
    return seen.plain.token_ids[20]


ENDING = {
    "stop": Row(
        lambda one, seen: (
            one.finish == "stop" and one.text == seen.plain.text[: seen.plain.text.index(_stop_string(seen))]
        ),
        make=lambda seen: {"stop": [_stop_string(seen)]},
    ),
    "stop_token_ids": Row(
        lambda one, seen: one.num_tokens == seen.plain.token_ids.index(_stop_token(seen)) + 1,
        make=lambda seen: {"stop_token_ids": [_stop_token(seen)]},
    ),
    "ignore_eos": Row(
        lambda one, _: (one.num_tokens, one.finish) == (1, "stop"),
        make=lambda seen: {"ignore_eos": False, "logit_bias": {seen.eos: 100.0}},
    ),
    "ignored end": Row(
        lambda one, _: (one.num_tokens, one.finish) == (40, "length"),
        make=lambda seen: {"logit_bias": {seen.eos: 100.0}},
        base=None,
    ),
    "deadline": Row(
        lambda one, _: one.error == "DEADLINE_EXCEEDED",
        {"deadline_s": 0.05, "max_tokens": 1500},
        is_same=False,
    ),
}

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "blue"]},
        "places": {"type": "array", "maxItems": 3, "items": {"type": "boolean"}},
    },
    "required": ["colour", "places"],
    "additionalProperties": False,
}


def _object(one: Answer) -> Any:
    try:
        return json.loads(one.text)
    except ValueError:
        return None


def _follows(one: Answer, _: Seen) -> bool:
    found = _object(one)
    return isinstance(found, dict) and found["colour"] in ("red", "blue") and len(found["places"]) <= 3


def _form(form: Any, likes: str = "", **more: Any) -> Callable[[Seen], Options]:
    """No blanks, of which these models like to say nothing else; `likes` are tokens to be preferred."""

    def make(seen: Seen) -> Options:
        biases = dict.fromkeys(map(seen.token_of, " \t\r\n"), -100.0)
        return {"format": form, "logit_bias": biases | dict.fromkeys(map(seen.token_of, likes), 30.0)} | more

    return make


FORMATS = {
    "json_schema": Row(_follows, make=_form({"json_schema": SCHEMA})),
    "drawn json_schema": Row(_follows, make=_form({"json_schema": SCHEMA}, temperature=1.5, seed=4)),
    "json_object": Row(lambda one, _: isinstance(_object(one), dict), make=_form("json_object", '"}')),
    "regex": Row(
        lambda one, _: re.fullmatch("[a-c]{5,30}!", one.text) is not None,
        make=_form({"regex": "[a-c]{5,30}!"}),
        doors=(GRPC, OIP),
    ),
    "grammar": Row(
        lambda one, _: re.fullmatch(r"(left|right),(up|down)\.", one.text) is not None,
        make=_form({"grammar": 'start: ("left" | "right") "," ("up" | "down") "."'}),
        doors=(GRPC, OIP),
    ),
    "format that is none": Row(
        lambda one, _: one.error == "INVALID_ARGUMENT",
        {"format": {"json_schema": {"type": "nothing"}}},
    ),
}

FUNCTION = {"name": "look", "description": "at it", "parameters": {"type": "object", "properties": {}}}
TOOLS = [{"type": "function", "function": FUNCTION}]
CALL = {"id": "c", "type": "function", "function": {"name": "look", "arguments": '{"far": true}'}}
CALLED = [
    {"role": "system", "content": "be short"},
    {"role": "user", "content": WORDS},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "nothing", "tool_call_id": "c"},
]


def _is_longer(one: Answer, seen: Seen) -> bool:
    return one.prompt_tokens > seen.plain.prompt_tokens and one.text != seen.plain.text


PROMPTS = {
    "text": Row(
        _is_plain, make=lambda seen: {"prompt": seen.rendered}, base=None, doors=(GRPC, COMPLETION, OIP)
    ),
    "token ids": Row(
        _is_plain, make=lambda seen: {"prompt": seen.prompt_ids}, base=None, doors=(GRPC, COMPLETION, OIP)
    ),
    "tools": Row(_is_longer, {"tools": TOOLS}, doors=CHATTING),
    "called tools": Row(
        lambda one, seen: one.prompt_tokens == seen.num_tokens(CALLED, TOOLS),
        {"tools": TOOLS},
        messages=CALLED,
        doors=CHATTING,
    ),
}


def pictured(*pictures: bytes) -> list[dict[str, Any]]:
    parts = [{"type": "image", "image": picture} for picture in pictures]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": WORDS}]}]


def linked(picture: bytes, **more: str) -> list[dict[str, Any]]:
    """`more` stands beside the URL."""
    part = {"type": "image_url", "image_url": {"url": data_url(picture)} | more}
    return [{"role": "user", "content": [part, {"type": "text", "text": WORDS}]}]


PICTURE = make_picture(np.random.default_rng(1), 140, 84)
OTHER = make_picture(np.random.default_rng(2), 56, 168)
LARGE = make_picture(np.random.default_rng(3), 640, 480)


def _has_size(*bounds: int | None) -> Holds:
    """All tokens of the prompt are those of pictures as large as LARGE, so bounded, and of their messages."""

    def holds(one: Answer, seen: Seen) -> bool:
        sizes = [seen.picture_tokens(640, 480, bound) for bound in bounds]
        messages = linked(b"") * len(bounds)
        return one.prompt_tokens == seen.num_tokens(messages) + sum(sizes) - len(sizes)

    return holds


PICTURES = {
    "picture": Row(_is_longer, messages=pictured(PICTURE), doors=CHATTING),
    "two pictures": Row(_is_longer, messages=pictured(OTHER, PICTURE), doors=CHATTING),
    "picture by URL": Row(_is_longer, messages=linked(PICTURE), doors=CHATTING),
    "low detail": Row(_has_size(512 * 512), messages=linked(LARGE, detail="low"), base=None, doors=CHATTING),
    "high detail": Row(_has_size(None), messages=linked(LARGE, detail="high"), base=None, doors=CHATTING),
    "both details": Row(
        _has_size(512 * 512, None),
        messages=linked(LARGE, detail="low") + linked(LARGE),
        base=None,
        doors=CHATTING,
    ),
    "picture within": Row(_is_longer, messages=pictured(PICTURE), doors=(GRPC,), own=INLINE),
}

REQUESTS = {
    "model": Row(
        lambda one, _: (one.error, one.named) in (("NOT_FOUND", "model"), ("NOT_FOUND", "model_name")),
        {"model": "other"},
    ),
    "request_id": Row(lambda one, _: one.request_id.startswith("mine-"), {"request_id": "mine-%s"}),
    "cache_scope": Row(_is_cold, {"cache_scope": "none"}),
    "cache_salt": Row(_is_cold, {"cache_salt": "%s"}),
    "tenant": Row(_is_cold, {"tenant": "tenant-%s"}),
    "priority": Row(
        lambda one, seen: seen.has_class(f"high-{one.request_id.partition('-')[2]}", "high"),
        {"tenant": "high-%s", "priority": 5, "request_id": "id-%s"},
    ),
    "resumable": Row(
        lambda one, seen: seen.resumed(one.request_id) == one.text,
        {"resumable_s": 60.0, "request_id": "kept-%s"},
        base=None,
        doors=(GRPC,),
    ),
}

ROWS = SAMPLING | ENDING | FORMATS | PROMPTS | PICTURES | REQUESTS
