"""Completions of raw prompts over HTTP."""

from __future__ import annotations

import pytest

from tests.coordinator.openai.conftest import HttpBench, error_of, events_of
from tests.coordinator.openai.test_chat import text_of


async def test_answer(door: HttpBench) -> None:
    answer = (await door.complete("abc", seed=3)).json()
    assert answer["object"] == "text_completion"
    (choice,) = answer["choices"]
    assert choice == {"index": 0, "text": text_of(door, 3, 4), "logprobs": None, "finish_reason": "length"}
    tokens = door.bench.coordinator.door.tokenizer.encode("abc")
    assert answer["usage"]["prompt_tokens"] == len(tokens)


async def test_sixteen_tokens_unless_said(door: HttpBench) -> None:
    response = await door.http.post("/v1/completions", json={"prompt": "x"})
    assert response.json()["usage"]["completion_tokens"] == 16


async def test_stream_equals_whole(door: HttpBench) -> None:
    *events, done = events_of(await door.complete(stream=True, seed=3))
    assert done == "[DONE]"
    assert "".join(event["choices"][0]["text"] for event in events) == text_of(door, 3, 4)
    assert events[-1]["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("prompt", "prompt_tokens"), [([5, 6, 7], 3), ([[5, 6], [7]], 3), ([[5, 6, 7]], 3)], ids=str
)
async def test_tokens(door: HttpBench, prompt: list[object], prompt_tokens: int) -> None:
    answer = (await door.complete(prompt)).json()
    assert answer["usage"]["prompt_tokens"] == prompt_tokens
    assert len(answer["choices"]) == (2 if len(prompt) == 2 else 1)


async def test_several_prompts_with_several_choices(door: HttpBench) -> None:
    answer = (await door.complete([[5, 6], [7]], n=2, seed=8)).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert [choice["text"] for choice in answer["choices"]] == [text_of(door, s, 4) for s in (8, 9, 8, 9)]
    assert answer["usage"]["prompt_tokens"] == 3


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": [[1]] * 65, "n": 2}, "prompt"),
        ({"prompt": [2**31]}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt[1]"),
        ({"best_of": 3}, "best_of"),
        ({"echo": True}, "echo"),
        ({"suffix": "x"}, "suffix"),
        ({"logprobs": 21}, "logprobs"),
    ],
)
async def test_refusals(door: HttpBench, fields: dict[str, object], param: str) -> None:
    assert error_of(await door.complete(**({"prompt": "x"} | fields)))["param"] == param
