"""Every field of both calls, and what it is in the internal request."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pytest

from coordinator.calls import ChatMessage, ChatPart, GenerateCall, ToolCall
from core.cache.scope import CacheScope
from core.output_format import FormatKind, OutputFormat
from tests.coordinator.openai.conftest import error_of
from tests.coordinator.openai.scripted import MESSAGES, Script

SCHEMA = {"type": "object", "properties": {"ä": {"type": "string"}}}

COMMON: list[tuple[dict[str, Any], str, Any]] = [
    ({}, "sampling.temperature", 1.0),
    ({}, "sampling.seed", None),
    ({"model": "org/m"}, "model", "org/m"),
    ({"max_tokens": 5}, "sampling.max_tokens", 5),
    ({"temperature": 0}, "sampling.temperature", 0.0),
    ({"top_p": 0.5}, "sampling.top_p", 0.5),
    ({"top_k": 9}, "sampling.top_k", 9),
    ({"top_k": -1}, "sampling.top_k", 0),
    ({"min_p": 0.1}, "sampling.min_p", 0.1),
    ({"presence_penalty": 1.5}, "sampling.presence_penalty", 1.5),
    ({"frequency_penalty": -1}, "sampling.frequency_penalty", -1.0),
    ({"repetition_penalty": 1.1}, "sampling.repetition_penalty", 1.1),
    ({"seed": 3}, "sampling.seed", 3),
    ({"seed": -1}, "sampling.seed", 2**64 - 1),
    ({"logit_bias": {"7": 5, "3": -100}}, "sampling.logit_bias", ((3, -100.0), (7, 5.0))),
    ({"stop": "x"}, "stop.strings", ("x",)),
    ({"stop": ["x", "y"]}, "stop.strings", ("x", "y")),
    ({"stop_token_ids": [4]}, "stop.token_ids", (4,)),
    ({"ignore_eos": True}, "stop.ignore_eos", True),
    ({"priority": -3}, "priority", -3),
    ({"cache_salt": "s"}, "cache_salt", "s"),
    ({"cache_scope": "none"}, "cache_scope", CacheScope.NONE),
    ({"tenant": "t"}, "tenant", "t"),
    ({"request_id": "r"}, "request_id", "r"),
    ({"timeout": 2}, "deadline_s", 2.0),
    ({"response_format": {"type": "text"}}, "format", None),
    ({"response_format": {"type": "json_object"}}, "format", OutputFormat(FormatKind.JSON_OBJECT)),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
        "format",
        OutputFormat(FormatKind.JSON_SCHEMA, '{"type":"object","properties":{"ä":{"type":"string"}}}'),
    ),
]
CHAT: list[tuple[dict[str, Any], str, Any]] = [
    ({"max_completion_tokens": 5}, "sampling.max_tokens", 5),
    ({}, "sampling.logprobs", None),
    ({"logprobs": True}, "sampling.logprobs", 0),
    ({"logprobs": True, "top_logprobs": 4}, "sampling.logprobs", 4),
]
# Accepted, as programs send them, and without effect.
NOTHING = {"user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "n": None}


def look_up(call: GenerateCall, path: str) -> Any:
    return reduce(getattr, path.split("."), call)


@pytest.mark.parametrize(("fields", "path", "value"), COMMON + CHAT, ids=str)
async def test_chat_fields(fields: dict[str, Any], path: str, value: Any) -> None:
    script = Script()
    assert (await script.chat(**fields, **NOTHING)).status_code == 200
    (call,) = script.calls
    assert look_up(call, path) == value


@pytest.mark.parametrize(("fields", "path", "value"), COMMON, ids=str)
async def test_completion_fields(fields: dict[str, Any], path: str, value: Any) -> None:
    script = Script()
    assert (await script.complete(**fields, **NOTHING)).status_code == 200
    (call,) = script.calls
    assert look_up(call, path) == value


async def test_messages() -> None:
    script = Script()
    parts = [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAEC", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "data:,%00a"}},
    ]
    called = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "developer", "content": "be good"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None, "tool_calls": [called], "refusal": None},
        {"role": "tool", "content": "4", "tool_call_id": "c1"},
    ]
    await script.chat(messages=messages)
    system, user, assistant, tool = script.calls[0].messages
    assert system == ChatMessage("system", (ChatPart("be good"),))
    assert [part.image and (part.image.url or part.image.data) for part in user.parts] == [
        None,
        "https://x/y.png",
        b"\x00\x01\x02",
        b"\x00a",
    ]
    assert [part.image and part.image.max_pixels for part in user.parts] == [None, None, 512 * 512, None]
    assert assistant == ChatMessage("assistant", (), (ToolCall("c1", "f", "{}"),))
    assert tool == ChatMessage("tool", (ChatPart("4"),), tool_call_id="c1")


def user(*parts: Any) -> list[Any]:
    return [*MESSAGES, {"role": "user", "content": list(parts)}]


def image(**fields: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": fields}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"no_such_thing": 1}, "no_such_thing"),
    ({"audio": {"voice": "x"}}, "audio"),
    ({"reasoning_effort": "low"}, "reasoning_effort"),
    ({"store": True}, "store"),
    ({"modalities": ["audio"]}, "modalities[0]"),
    ({"n": 0}, "n"),
    ({"n": 129}, "n"),
    ({"temperature": "hot"}, "temperature"),
    ({"seed": 2**64}, "seed"),
    ({"stop": [1]}, "stop[0]"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"logit_bias": {"-1": 1}}, "logit_bias"),
    ({"logit_bias": {"1": "x"}}, "logit_bias.1"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"more": 1}}, "stream_options.more"),
    ({"max_tokens": 3, "max_completion_tokens": 4}, "max_completion_tokens"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"response_format": {"type": "xml"}}, "response_format"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.schema"),
    ({"messages": None}, "messages"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0]"),
    ({"messages": [{"role": "user", "content": "x", "name": "me"}]}, "messages[0].name"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": user({"type": "text", "text": 3})}, "messages[1].content[0].text"),
    ({"messages": user({"type": "input_audio"})}, "messages[1].content[0]"),
    ({"messages": user(image(url="x", detail="middle"))}, "messages[1].content[0].image_url.detail"),
    ({"messages": user(image(url="data:;base64,?"))}, "messages[1].content[0].image_url.url"),
    ({"cache_scope": "all"}, "cache_scope"),
    ({"priority": 2**40}, "priority"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED, ids=str)
async def test_refused_by_name(fields: dict[str, Any], param: str) -> None:
    script = Script()
    error = error_of(await script.chat(**fields))
    assert error["param"] == param
    assert error["message"].startswith(param)
    assert not script.calls


async def test_the_codes_tell_unknown_from_unsupported() -> None:
    assert error_of(await Script().chat(audio={}))["code"] == "unsupported_parameter"
    assert error_of(await Script().chat(audi={}))["code"] == "unknown_parameter"
