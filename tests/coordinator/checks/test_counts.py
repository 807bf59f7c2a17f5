"""Counts are looked at before records are made, by every door."""

from __future__ import annotations

import pytest

from coordinator.calls import ChatMessage, ChatPart, GenerateCall, ToolCall
from coordinator.checks.call import check_call
from coordinator.checks.counts import MAX_PIECES, MAX_PROMPT_TOKENS
from coordinator.errors import InvalidFieldError
from coordinator.oip.values import from_json
from coordinator.wire.inference import to_call
from elasticmm.v1 import inference_pb2 as pb
from tests.coordinator.checks.test_call import LIMITS
from tests.coordinator.oip.conftest import infer_request, refused
from tests.coordinator.openai.conftest import error_of
from tests.coordinator.openai.scripted import Script


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.GenerateRequest(messages=[pb.Message()] * (MAX_PIECES + 1)), "messages"),
        (pb.GenerateRequest(messages=[pb.Message(parts=[pb.Part()] * MAX_PIECES)]), "messages"),
        (pb.GenerateRequest(messages=[pb.Message(tool_calls=[pb.ToolCall()] * MAX_PIECES)]), "messages"),
        (
            pb.GenerateRequest(prompt=pb.Prompt(token_ids=pb.TokenIds(ids=[1] * (MAX_PROMPT_TOKENS + 1)))),
            "prompt.token_ids",
        ),
        (pb.GenerateRequest(tools=[pb.Tool()] * 129), "tools"),
    ],
    ids=["messages", "parts", "tool calls", "tokens", "tools"],
)
def test_nothing_is_made_of_too_many(request_: pb.GenerateRequest, field: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        to_call(request_)
    assert caught.value.field == field


def test_as_many_as_may_be_are_made() -> None:
    message = pb.Message(parts=[pb.Part(text="")] * (MAX_PIECES - 1))
    assert len(to_call(pb.GenerateRequest(messages=[message])).messages[0].parts) == MAX_PIECES - 1


def test_tool_calls_are_bounded_together() -> None:
    call = ToolCall("", "f", '{"a": "' + "x" * 60_000 + '"}')
    messages = (ChatMessage("assistant", (ChatPart(text="x"),), (call,) * 20),)
    with pytest.raises(InvalidFieldError, match="characters in tool calls"):
        check_call(GenerateCall(messages), LIMITS)


async def test_over_http() -> None:
    parts = [{"type": "text", "text": ""}] * 10_000
    script = Script(message_bytes=10**6)
    error = error_of(await script.chat(messages=[{"role": "user", "content": parts}]), 400)
    assert error["param"] == "messages"
    assert not script.calls


def test_over_the_open_inference_protocol() -> None:
    parts = [{"type": "text", "text": ""}] * 10_000
    assert refused(infer_request(None, messages=[{"role": "user", "content": parts}])).field == "messages"
    with pytest.raises(InvalidFieldError, match="limit 300000"):
        from_json("messages", "[" + "0," * 300_001 + "0]")
    tensor = infer_request(None)
    tensor.inputs.add(name="input_ids", datatype="INT32", shape=[400_000]).contents.int_contents.extend(
        [1] * 400_000
    )
    assert refused(tensor).field == "input_ids"
