"""The openai package, unchanged, against a cluster of real processes."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel, Field

from tests.integration.asking import Asked, make_questions
from tests.integration.running import Running, cluster

pytestmark = pytest.mark.cluster
SETTINGS: dict[str, Any] = {"temperature": 0, "max_tokens": 12}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    model = Path("models/demo/checkpoint").resolve()
    with cluster(tmp_path_factory.mktemp("openai"), model, "e1p1d1", "--dtype", "float32") as started:
        yield started
        started.assert_idle()


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://{running.http}/v1", api_key="none", max_retries=0) as made:
        yield made


def messages_of(asked: Asked) -> list[Any]:
    """Pictures as data: URLs."""
    parts = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {
            "type": "image_url",
            "image_url": {"url": f"data:image/png;base64,{base64.b64encode(part).decode()}"},
        }
        for part in asked.parts
    ]
    return [{"role": "user", "content": parts}]


def test_answers_are_those_of_the_grpc_door(running: Running, client: openai.OpenAI) -> None:
    for asked in make_questions(3, 4):
        same = running.client.generate(asked.messages, **SETTINGS).result()
        answer = client.chat.completions.create(model="checkpoint", messages=messages_of(asked), **SETTINGS)
        assert answer.choices[0].message.content == same.text
        assert answer.usage.completion_tokens == len(same.token_ids)


def test_a_stream_equals_the_whole(client: openai.OpenAI) -> None:
    asked = {"model": "checkpoint", "messages": messages_of(make_questions(5, 3)[2]), **SETTINGS}
    whole = client.chat.completions.create(**asked)
    with client.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    ) as stream:
        *chunks, last = list(stream)
    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    )
    assert last.usage.completion_tokens == whole.usage.completion_tokens


def test_the_streaming_helper(client: openai.OpenAI) -> None:
    """It takes no answer that was cut short, so a stop string ends this one."""
    asked: dict[str, Any] = {"model": "checkpoint", "messages": [{"role": "user", "content": "hi"}]}
    whole = client.chat.completions.create(**asked, **SETTINGS).choices[0].message.content
    with client.chat.completions.stream(**asked, **SETTINGS, stop=whole[3:6]) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion().choices[0]
    assert "".join(deltas) == final.message.content == whole[: whole.index(whole[3:6])]
    assert final.finish_reason == "stop"


class Pick(BaseModel):
    number: Literal[1, 2]
    letters: list[Literal["a", "b"]] = Field(min_length=2, max_length=2)


def test_parsed_outputs(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="checkpoint",
        messages=[{"role": "user", "content": "which?"}],
        response_format=Pick,
        seed=2,
        max_tokens=200,
    )
    assert isinstance(answer.choices[0].message.parsed, Pick)


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="checkpoint", prompt=["a", "b"], logprobs=2, **SETTINGS)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert len(answer.choices[0].logprobs.tokens) <= 12
    whole = client.completions.create(model="checkpoint", prompt="a", **SETTINGS)
    assert answer.choices[0].text == whole.choices[0].text


def test_errors_are_the_packages(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="model: 'other' is not served here"):
        client.chat.completions.create(model="other", messages=[{"role": "user", "content": "x"}])
    with pytest.raises(openai.BadRequestError, match="top_p"):
        client.chat.completions.create(
            model="checkpoint", messages=[{"role": "user", "content": "x"}], top_p=3
        )


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["checkpoint"]
    assert client.models.retrieve("checkpoint").owned_by == "elasticmm"


async def test_many_at_once(running: Running) -> None:
    """Seeds make answers the same whatever runs beside them."""
    async with openai.AsyncOpenAI(base_url=f"http://{running.http}/v1", api_key="none") as client:

        async def ask(asked: Asked) -> str:
            answer = await client.chat.completions.create(
                model="checkpoint", messages=messages_of(asked), max_tokens=8, seed=4
            )
            return str(answer.choices[0].message.content)

        questions = make_questions(9, 3)
        alone = [await ask(each) for each in questions]
        assert await asyncio.gather(*map(ask, questions * 2)) == alone * 2
