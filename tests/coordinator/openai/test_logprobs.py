"""Log probabilities in both forms, whole and streamed."""

from __future__ import annotations

from tests.coordinator.openai.conftest import events_of
from tests.coordinator.openai.scripted import Script


async def test_chat() -> None:
    (choice,) = (await Script(texts=("a", "é")).chat(logprobs=True, top_logprobs=2)).json()["choices"]
    content = choice["logprobs"]["content"]
    assert [entry["bytes"] for entry in content] == [[0x61], [0xC3], [0xA9]]
    assert content[0]["token"] == "a"
    assert content[0]["logprob"] == -0.5
    assert content[0]["top_logprobs"] == [
        {"token": "x", "logprob": -0.25, "bytes": [0x78]},
        {"token": "\ufffd", "logprob": -9999.0, "bytes": [0xE2]},
    ]


async def test_chat_stream_equals_whole() -> None:
    whole = (await Script().chat(logprobs=True)).json()["choices"][0]["logprobs"]["content"]
    *events, _ = events_of(await Script().chat(logprobs=True, stream=True))
    streamed = [event["choices"][0]["logprobs"] for event in events]
    assert [entry for each in streamed if each for entry in each["content"]] == whole
    assert whole[0]["top_logprobs"] == []


async def test_completion() -> None:
    (choice,) = (await Script(texts=("ab", "c")).complete(logprobs=1)).json()["choices"]
    assert choice["logprobs"] == {
        "tokens": ["a", "b", "c"],
        "token_logprobs": [-0.5] * 3,
        "top_logprobs": [{"x": -0.25, letter: -0.5} for letter in "abc"],
        "text_offset": [0, 1, 2],
    }


async def test_completion_stream_equals_whole() -> None:
    whole = (await Script().complete(logprobs=0)).json()["choices"][0]["logprobs"]
    *events, _ = events_of(await Script().complete(logprobs=0, stream=True))
    streamed = [event["choices"][0]["logprobs"] for event in events]
    offsets = [offset for each in streamed if each for offset in each["text_offset"]]
    assert offsets == whole["text_offset"] == list(range(9))
