"""Tools and the choice among them, from the body to the answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from coordinator.calls import Tool
from coordinator.errors import InvalidFieldError
from core.output_format import FormatKind
from core.sequence import FinishReason
from tests.coordinator.openai.conftest import error_of, events_of
from tests.coordinator.openai.scripted import Script

SCHEMA = {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "integer"}}}
F = {"type": "function", "function": {"name": "f", "description": "Does f.", "parameters": SCHEMA}}
G = {"type": "function", "function": {"name": "g"}}
NAMED = {"type": "function", "function": {"name": "f"}}
CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'


async def test_free_choice() -> None:
    script = Script(texts=("Well. ", CALL[:9], CALL[9:]))
    (choice,) = (await script.chat(tools=[F, G])).json()["choices"]
    assert script.calls[0].tools == (Tool("f", "Does f.", json.dumps(SCHEMA)), Tool("g", "", ""))
    assert script.calls[0].format is None
    assert choice["message"]["content"] == "Well."
    (call,) = choice["message"]["tool_calls"]
    assert call["function"] == {"name": "f", "arguments": '{"a": 1}'}
    assert choice["finish_reason"] == "tool_calls"


async def test_content_is_null_beside_calls_alone() -> None:
    (choice,) = (await Script(texts=(CALL,)).chat(tools=[F])).json()["choices"]
    assert choice["message"]["content"] is None


async def test_free_choice_in_a_stream() -> None:
    *events, done = events_of(await Script(texts=("Well. ", CALL)).chat(tools=[F], stream=True))
    assert done == "[DONE]"
    deltas = [event["choices"][0]["delta"] for event in events]
    assert "".join(delta.get("content", "") for delta in deltas) == "Well."
    (call,) = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert (call["index"], call["type"]) == (0, "function")
    assert call["function"] == {"name": "f", "arguments": '{"a": 1}'}
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_one_call_only() -> None:
    script = Script(texts=(CALL.removesuffix("</tool_call>"),))
    answer = (await script.chat(tools=[F], parallel_tool_calls=False, stop="x")).json()
    assert script.calls[0].stop.strings == ("x", "</tool_call>")
    assert len(answer["choices"][0]["message"]["tool_calls"]) == 1


async def test_no_choice() -> None:
    script = Script(texts=(CALL,))
    (choice,) = (await script.chat(tools=[F], tool_choice="none")).json()["choices"]
    assert script.calls[0].tools == ()
    assert choice["message"]["content"] == CALL
    assert "tool_calls" not in choice["message"]


async def test_named() -> None:
    script = Script(texts=('{"a":', "1}"))
    (choice,) = (await script.chat(tools=[F, G], tool_choice=NAMED)).json()["choices"]
    wanted = script.calls[0].format
    assert (wanted.kind, json.loads(wanted.text)) == (FormatKind.JSON_SCHEMA, SCHEMA)
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a":1}'}
    assert choice["finish_reason"] == "stop"


async def test_named_in_a_stream() -> None:
    script = Script(texts=('{"a":', "1}"))
    *events, _ = events_of(await script.chat(tools=[F], tool_choice=NAMED, stream=True))
    calls = [call for e in events for call in e["choices"][0]["delta"].get("tool_calls", ())]
    assert [call["function"] for call in calls] == [
        {"name": "f", "arguments": '{"a":'},
        {"arguments": "1}"},
    ]
    assert ["id" in call for call in calls] == [True, False]


async def test_required() -> None:
    script = Script(texts=('[{"name":"g",', '"arguments":{}}]'))
    (choice,) = (await script.chat(tools=[F, G], tool_choice="required")).json()["choices"]
    schema = json.loads(script.calls[0].format.text)
    first = schema["items"]["anyOf"][0]["properties"]["arguments"]
    assert first["properties"]["a"] == {"$ref": "#/items/anyOf/0/properties/arguments/$defs/n"}
    assert schema["minItems"] == 1
    assert "maxItems" not in schema
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "g", "arguments": "{}"}
    assert choice["finish_reason"] == "tool_calls"


async def test_required_but_only_one() -> None:
    script = Script(texts=("{}",))
    (choice,) = (await script.chat(tools=[F], tool_choice="required", parallel_tool_calls=False)).json()[
        "choices"
    ]
    assert json.loads(script.calls[0].format.text) == SCHEMA
    assert choice["finish_reason"] == "tool_calls"
    await script.chat(tools=[F, G], tool_choice="required", parallel_tool_calls=False)
    assert json.loads(script.calls[1].format.text)["maxItems"] == 1


async def test_cut_short() -> None:
    script = Script(texts=('{"a"',), reason=FinishReason.LENGTH)
    (choice,) = (await script.chat(tools=[F], tool_choice=NAMED)).json()["choices"]
    assert choice["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tools": [G], "tool_choice": NAMED}, "tool_choice"),
        ({"tools": [F], "response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ],
)
async def test_what_does_not_fit(fields: dict[str, Any], param: str) -> None:
    assert error_of(await Script().chat(**fields))["param"] == param


@pytest.mark.parametrize(
    ("field", "param"),
    [("format.json_schema", "tools"), ("tools[1].parameters", "tools[1].function.parameters")],
)
async def test_the_tools_are_named(field: str, param: str) -> None:
    script = Script(error=InvalidFieldError(field, "bad"), is_accepted=False)
    assert error_of(await script.chat(tools=[F, G], tool_choice=NAMED))["param"] == param
