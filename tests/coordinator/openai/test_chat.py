"""Chats over HTTP, whole and streamed."""

from __future__ import annotations

import base64

from tests.coordinator.conftest import picture
from tests.coordinator.fake_stage import fake_token
from tests.coordinator.openai.conftest import HttpBench, MakeHttp, error_of
from tests.coordinator.openai.scripted import Script


def text_of(door: HttpBench, seed: int, count: int) -> str:
    return door.bench.coordinator.door.tokenizer.decode([fake_token(seed, i) for i in range(count)])


async def test_answer(door: HttpBench) -> None:
    response = await door.chat(model="checkpoint", seed=5, max_tokens=20)
    answer = response.json()
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": text_of(door, 5, 20), "refusal": None}
    assert choice["finish_reason"] == "length"
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "checkpoint"
    assert answer["usage"]["completion_tokens"] == 20
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 0, "cached_media": 0}
    assert answer["id"] == f"chatcmpl-{response.headers['x-request-id']}"
    await door.bench.assert_idle()


async def test_stream_equals_whole(door: HttpBench) -> None:
    *events, done = await door.chat_stream(seed=5, max_tokens=20)
    assert done == "[DONE]"
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    deltas = [event["choices"][0]["delta"].get("content", "") for event in events]
    assert "".join(deltas) == text_of(door, 5, 20)
    assert [event["choices"][0]["finish_reason"] for event in events][-2:] == [None, "length"]
    assert not any("usage" in event for event in events)


async def test_seeds_of_choices_count_up(door: HttpBench) -> None:
    answer = (await door.chat(n=3, seed=2**64 - 1)).json()
    texts = [choice["message"]["content"] for choice in answer["choices"]]
    assert texts == [text_of(door, seed, 4) for seed in (2**64 - 1, 0, 1)]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert answer["usage"]["completion_tokens"] == 12
    one = (await door.chat()).json()
    assert answer["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"]


async def test_choices_in_a_stream(door: HttpBench) -> None:
    events = await door.chat_stream(n=3, seed=1)
    for index in range(3):
        mine = [e["choices"][0] for e in events[:-1] if e["choices"][0]["index"] == index]
        text = "".join(choice["delta"].get("content", "") for choice in mine)
        assert text == text_of(door, 1 + index, 4)
        assert mine[-1]["finish_reason"] == "length"


async def test_usage_in_a_stream(door: HttpBench) -> None:
    events = await door.chat_stream(stream_options={"include_usage": True})
    assert [event["usage"] for event in events[:-2]] == [None] * (len(events) - 2)
    assert events[-2]["choices"] == []
    assert events[-2]["usage"]["completion_tokens"] == 4


async def test_usage_in_every_chunk(door: HttpBench) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    events = await door.chat_stream(stream_options=options)
    counts = [event["usage"]["completion_tokens"] for event in events[:-1]]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 4)


async def test_stop(door: HttpBench) -> None:
    text = text_of(door, 5, 20)
    (choice,) = (await door.chat(seed=5, max_tokens=20, stop=text[3:6])).json()["choices"]
    assert choice["message"]["content"] == text[:3]
    assert choice["finish_reason"] == "stop"


async def test_pictures(make_http: MakeHttp) -> None:
    door = await make_http("e", "p", "d", gateway=True)
    parts = [{"type": "text", "text": "what?"}]
    for kind in ("PNG", "JPEG"):
        url = f"data:image/{kind};base64,{base64.b64encode(picture(kind)).decode()}"
        parts.append({"type": "image_url", "image_url": {"url": url, "detail": "high"}})
    answer = (await door.chat(parts, seed=2)).json()
    assert answer["choices"][0]["message"]["content"] == text_of(door, 2, 4)
    assert door.bench.stages[0].kinds().count("encode") == 2
    await door.bench.assert_idle()


async def test_a_broken_picture_is_named(make_http: MakeHttp) -> None:
    door = await make_http("e", "p", "d", gateway=True)
    parts = [{"type": "text", "text": "what?"}]
    bad = base64.b64encode(b"no picture").decode()
    for url in ("data:image/png;base64,%%%", f"data:image/png;base64,{bad}", "file:///etc/passwd"):
        image = {"type": "image_url", "image_url": {"url": url}}
        error = error_of(await door.chat([*parts, image]))
        assert error["param"] == "messages[0].content[1].image_url.url"


async def test_the_request_id_is_the_callers(door: HttpBench) -> None:
    assert (await door.chat(request_id="mine")).json()["id"] == "chatcmpl-mine"
    response = await door.http.post(
        "/v1/completions", json={"prompt": "x", "max_tokens": 1}, headers={"X-Request-Id": "theirs"}
    )
    assert response.headers["x-request-id"] == "theirs"


async def test_more_choices_than_events_may_wait() -> None:
    for stream in (False, True):
        response = await Script().chat(n=128, stream=stream)
        assert response.text.count('"stop"') == 128
