"""Content and tool calls in an answer's text, however it is cut into pieces."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from coordinator.openai.readers import (
    AnswerReader,
    ArgumentsReader,
    CallPiece,
    ListReader,
    PlainReader,
    TaggedReader,
)


def read(reader: AnswerReader, pieces: list[str]) -> tuple[str, list[CallPiece]]:
    read = [reader.push(piece) for piece in pieces] + [reader.finish()]
    return "".join(each.text for each in read), [call for each in read for call in each.calls]


def tagged(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


@st.composite
def cut(draw: st.DrawFn, text: str) -> list[str]:
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    bounds = [0, *places, len(text)]
    return [text[a:b] for a, b in pairwise(bounds)]


CALLS = f"Let me see. \n{tagged('f', '{}')}\n{tagged('g', json.dumps({'a': ['<tool', 1]}))}\n"
NO_CALLS = 'a < b <tool_ca  \n <tool_call>no JSON</tool_call> <tool_call>{"arguments": {}}</tool_call> end \n'


@given(cut(CALLS))
def test_calls(pieces: list[str]) -> None:
    text, calls = read(reader := TaggedReader(), pieces)
    assert text == "Let me see."
    assert [(call.index, call.name, json.loads(call.arguments)) for call in calls] == [
        (0, "f", {}),
        (1, "g", {"a": ["<tool", 1]}),
    ]
    assert len({call.call_id for call in calls}) == 2
    assert reader.ends_as_call


@given(cut(NO_CALLS))
def test_what_is_no_call_is_content(pieces: list[str]) -> None:
    text, calls = read(reader := TaggedReader(), pieces)
    assert not calls
    assert text == NO_CALLS
    assert not reader.ends_as_call


@given(cut("all < of <tool_call>it "))
def test_plain(pieces: list[str]) -> None:
    assert read(PlainReader(), pieces) == ("all < of <tool_call>it ", [])


def test_content_is_not_held_longer_than_needed() -> None:
    reader = TaggedReader()
    assert reader.push("one <b").text == "one <b"
    assert reader.push(" <tool").text == ""
    assert reader.push("box").text == " <toolbox"


def test_a_call_that_a_stop_string_ended() -> None:
    text, calls = read(TaggedReader(), ["x ", '<tool_call>{"name": "f", "arguments": {"a": 1}}\n'])
    assert text == "x"
    assert calls[0].arguments == '{"a": 1}'


def test_a_call_that_was_cut_short_is_content() -> None:
    assert read(TaggedReader(), ['<tool_call>{"name": "f"']) == ('<tool_call>{"name": "f"', [])


def test_arguments_of_a_call_decided_before() -> None:
    text, calls = read(reader := ArgumentsReader("f", ends_as_call=False), ["", '{"a":', "1}"])
    assert text == ""
    assert [(call.name, call.arguments) for call in calls] == [("f", '{"a":'), (None, "1}")]
    assert not reader.ends_as_call


def test_a_list_of_calls() -> None:
    answer = '[{"name":"f","arguments":{"a":1}},{"name":"g","arguments":{}}]'
    text, calls = read(reader := ListReader(), [answer[:20], answer[20:]])
    assert text == ""
    assert [(call.name, call.arguments) for call in calls] == [("f", '{"a": 1}'), ("g", "{}")]
    assert reader.ends_as_call


def test_a_list_that_was_cut_short_is_content() -> None:
    assert read(reader := ListReader(), ['[{"name":"f"']) == ('[{"name":"f"', [])
    assert not reader.ends_as_call
