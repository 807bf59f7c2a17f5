"""What users write becomes the wire's request, and what it cannot hold is refused with its field."""

from __future__ import annotations

from typing import Any

import pytest

from elasticmm.v1 import inference_pb2 as pb
from elasticmm_client import InvalidRequest
from elasticmm_client.messages import parse_messages
from elasticmm_client.request import build_request


def built(messages: Any = (), **options: Any) -> pb.GenerateRequest:
    return build_request(parse_messages(messages), options, {})  # type: ignore[arg-type]


def test_biases() -> None:
    assert dict(built(logit_bias={5: -1.5, 6: 2}).sampling.logit_bias) == {5: -1.5, 6: 2.0}


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("json_object", pb.OutputFormat(json_object=True)),
        ({"json_schema": {"type": "integer"}}, pb.OutputFormat(json_schema='{"type": "integer"}')),
        ({"json_schema": '{"type":"integer"}'}, pb.OutputFormat(json_schema='{"type":"integer"}')),
        ({"regex": "a+"}, pb.OutputFormat(regex="a+")),
        ({"grammar": 'start: "a"'}, pb.OutputFormat(grammar='start: "a"')),
    ],
)
def test_formats(form: Any, message: pb.OutputFormat) -> None:
    assert built(format=form).format == message


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("hi", pb.Prompt(text="hi")),
        ([3, 4], pb.Prompt(token_ids=pb.TokenIds(ids=[3, 4]))),
        ([], pb.Prompt(token_ids=pb.TokenIds())),
    ],
)
def test_prompts(prompt: Any, message: pb.Prompt) -> None:
    request = built(prompt=prompt)
    assert request.prompt == message
    assert not request.messages


PLAIN = {"name": "f", "description": "d", "parameters": {"type": "object"}}


@pytest.mark.parametrize("tool", [PLAIN, {"type": "function", "function": PLAIN}])
def test_tools(tool: Any) -> None:
    assert list(built(tools=[tool]).tools) == [
        pb.Tool(name="f", description="d", parameters='{"type": "object"}')
    ]


@pytest.mark.parametrize(
    "call",
    [
        {"id": "c", "name": "f", "arguments": {"a": "é"}},
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": "é"}'}},
    ],
)
def test_calls_and_their_answers(call: Any) -> None:
    request = built(
        [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "1"},
        ]
    )
    assert list(request.messages) == [
        pb.Message(role="assistant", tool_calls=[pb.ToolCall(id="c", name="f", arguments='{"a": "é"}')]),
        pb.Message(role="tool", tool_call_id="c", parts=[pb.Part(text="1")]),
    ]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"logit_bias": {"x": 1}}, "sampling.logit_bias"),
        ({"logit_bias": {-1: 1}}, "sampling.logit_bias"),
        ({"format": "xml"}, "format"),
        ({"format": {"regex": "a", "grammar": "b"}}, "format"),
        ({"format": {"regex": 5}}, "format.regex"),
        ({"format": {"json_schema": {"a": {1}}}}, "format.json_schema"),
        ({"prompt": [-1]}, "prompt.token_ids"),
        ({"tools": {"name": "f"}}, "tools"),
        ({"tools": [{}]}, "tools[0].name"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "c"}]}]},
            "messages[0].tool_calls[0].name",
        ),
    ],
)
def test_what_no_field_holds(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        built(**options)
    assert caught.value.field == field


def pictured(**how: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image", "url": "https://x/y"} | how]}]


@pytest.mark.parametrize(
    ("how", "max_pixels"),
    [({"max_pixels": 9}, 9), ({"detail": "low"}, 512 * 512), ({"detail": "high"}, None), ({}, None)],
)
def test_bounds_of_pictures(how: dict[str, Any], max_pixels: int | None) -> None:
    image = built(pictured(**how)).messages[0].parts[0].image
    assert (image.max_pixels if image.HasField("max_pixels") else None) == max_pixels


@pytest.mark.parametrize(
    ("how", "field"),
    [
        ({"max_pixels": 0}, "max_pixels"),
        ({"max_pixels": "9"}, "max_pixels"),
        ({"max_pixels": 9, "detail": "low"}, "max_pixels"),
        ({"detail": "middle"}, "detail"),
    ],
)
def test_bounds_that_are_none(how: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        built(pictured(**how))
    assert caught.value.field == f"messages[0].parts[0].image.{field}"
