"""Rows of what one kind of door alone has."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.integration.parameters.asks import CHAT, COMPLETION, OIP, WORDS, Answer
from tests.integration.parameters.rows import DRAWN, FUNCTION, SCHEMA, TOOLS, Row
from tests.integration.parameters.seen import Seen

HTTP = (CHAT, COMPLETION)


def _is_plain(one: Answer, seen: Seen) -> bool:
    return one.text == seen.plain.text


def _is_drawn(one: Answer, seen: Seen) -> bool:
    return one.text == seen.drawn.text


def _without_effect(doors: tuple[str, ...], **own: Any) -> Row:
    """Taken, and the answer is as without it."""
    return Row(_is_plain, base=None, doors=doors, own=own, is_same=False)


def _choices(one: Answer, _: Seen) -> bool:
    return len(one.raw["choices"]) == 3


def _usages(one: Answer) -> list[Any]:
    return [chunk.get("usage") for chunk in one.raw]


def _has_last_usage(one: Answer, seen: Seen) -> bool:
    *first, last = _usages(one)
    return not any(first) and last["completion_tokens"] == 40 and one.text == seen.plain.text


def _has_all_usages(one: Answer, _: Seen) -> bool:
    counts = [each["completion_tokens"] for each in _usages(one)]
    return counts == sorted(counts) and counts[-1] == 40


def _calls(one: Answer) -> list[Any]:
    return one.raw["choices"][0]["message"].get("tool_calls") or []


def _has_called(one: Answer, _: Seen) -> bool:
    return bool(_calls(one)) and {call["function"]["name"] for call in _calls(one)} == {"look"}


def _refuses(name: str) -> Callable[[Answer, Seen], bool]:
    return lambda one, _: (one.error, one.named) == ("INVALID_ARGUMENT", name)


def _http(holds: Callable[[Answer, Seen], bool], doors: tuple[str, ...] = HTTP, **own: Any) -> Row:
    return Row(holds, base=None, doors=doors, own=own, is_same=False)


def _forced(**own: Any) -> Row:
    """Without blanks, of which a model may have as many as a format lets it."""
    return Row(
        _has_called,
        base=None,
        doors=(CHAT,),
        own={"tools": TOOLS, "ignore_eos": False, "max_tokens": 400} | own,
        make=lambda seen: {"logit_bias": dict.fromkeys(map(seen.token_of, " \t\r\n"), -100.0)},
        is_same=False,
    )


_ANSWERED: list[dict[str, Any]] = [
    {"role": "developer", "content": "be short"},
    {"role": "assistant", "content": "yes?"},
    {"role": "user", "content": WORDS},
]
_NULLS: dict[str, Any] = {"refusal": None, "audio": None, "function_call": None, "annotations": []}
_NAMED = {
    "type": "json_schema",
    "json_schema": {"name": "form", "description": "of it", "strict": True, "schema": SCHEMA},
}

OPENAI = {
    "n": _http(_choices, n=3),
    "stream": _http(_is_plain, stream=True),
    "stream_options.include_usage": _http(
        _has_last_usage, stream=True, stream_options={"include_usage": True}
    ),
    "stream_options.continuous_usage_stats": _http(
        _has_all_usages, stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True}
    ),
    "max_completion_tokens": _http(
        lambda one, _: one.num_tokens == 9, (CHAT,), max_tokens=None, max_completion_tokens=9
    ),
    "response_format text": _http(_is_plain, response_format={"type": "text"}),
    "best_of": _http(_is_plain, (COMPLETION,), best_of=1),
    "another best_of": _http(_refuses("best_of"), (COMPLETION,), best_of=2),
    "echo, suffix": _without_effect((COMPLETION,), echo=False, suffix=None),
    "echo": _http(_refuses("echo"), (COMPLETION,), echo=True),
    "suffix": _http(_refuses("suffix"), (COMPLETION,), suffix="x"),
    "tool_choice required": _forced(tool_choice="required"),
    "tool_choice": _forced(tool_choice={"type": "function", "function": {"name": "look"}}),
    "tool_choice none": _http(_is_plain, (CHAT,), tools=TOOLS, tool_choice="none"),
    "parallel_tool_calls": _forced(tool_choice="required", parallel_tool_calls=False),
    "modalities": _without_effect((CHAT,), modalities=["text"]),
    "assistant's nulls": Row(
        lambda one, seen: (
            one.prompt_tokens == seen.num_tokens([_ANSWERED[0] | {"role": "system"}, *_ANSWERED[1:]])
        ),
        base=None,
        doors=(CHAT,),
        own={"messages": [_ANSWERED[0], _ANSWERED[1] | _NULLS, _ANSWERED[2]]},
        is_same=False,
    ),
    "strict": _forced(
        tools=[{"type": "function", "function": FUNCTION | {"strict": True}}], tool_choice="required"
    ),
    "response_format": Row(
        lambda one, _: json.loads(one.text).keys() == {"colour", "places"},
        base=None,
        own={"response_format": _NAMED, "ignore_eos": False, "max_tokens": 200},
        make=lambda seen: {"logit_bias": dict.fromkeys(map(seen.token_of, " \t\r\n"), -100.0)},
        doors=HTTP,
    ),
    "labels": _without_effect(HTTP, user="me", metadata={"a": "b"}, store=False, service_tier="auto"),
    "more labels": _without_effect(HTTP, safety_identifier="s", prompt_cache_key="k"),
    "resumable": _http(_refuses("resumable_s"), resumable_s=3.0),
    "timeout": _http(lambda one, _: one.error == "DEADLINE_EXCEEDED", timeout=0.05, max_tokens=1500),
}


def _outputs(one: Answer) -> dict[str, int]:
    return {output.name: len(output.contents.ListFields()) for output in one.raw[0].outputs}


def _oip(holds: Callable[[Answer, Seen], bool], options: dict[str, Any] | None = None, **own: Any) -> Row:
    return Row(holds, options or {}, base=None, doors=(OIP,), own=own, is_same=False)


def _returns(option: str, output: str) -> Row:
    return _oip(lambda one, _: output in _outputs(one), **{option: True})


OPEN_INFERENCE = {
    "random_seed": _oip(_is_drawn, {"temperature": DRAWN["temperature"]}, random_seed=DRAWN["seed"]),
    "stop_words": Row(
        lambda one, seen: one.finish == "stop" and seen.plain.text.startswith(one.text),
        base=None,
        doors=(OIP,),
        own={"stop_words": ["a", "e", "i", "o", "u", "c", "t", "r"]},
        is_same=False,
    ),
    "exclude_input_in_output": _oip(
        lambda one, seen: one.text == WORDS + seen.plain.text, exclude_input_in_output=False
    ),
    "return_finish_reason": _returns("return_finish_reason", "finish_reason"),
    "return_num_input_tokens": _returns("return_num_input_tokens", "num_input_tokens"),
    "return_num_output_tokens": _returns("return_num_output_tokens", "num_output_tokens"),
    "return_log_probs": _returns("return_log_probs", "output_log_probs"),
    "binary_data_output": _oip(
        lambda one, seen: seen.plain.text.encode() in one.raw[0].raw_output_contents[0],
        binary_data_output=True,
    ),
    "triton_enable_empty_final_response": _oip(_is_plain, triton_enable_empty_final_response=True),
    "stream": _oip(lambda one, seen: one.text == seen.plain.text and len(one.raw) > 1, stream=True),
    "sampling_parameters": _oip(_is_drawn, sampling_parameters=json.dumps(DRAWN)),
    "resumable": _oip(lambda one, _: one.named == "resumable_s", resumable_s=3.0),
}
