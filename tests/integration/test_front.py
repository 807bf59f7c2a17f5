"""The openai package, unchanged, over `elasticmm serve-http --workers 2`: as over the door inside."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from coordinator.access.keys import digest_of
from tests.integration.asking import make_questions
from tests.integration.fronts import Front, serve_http, wait_ready
from tests.integration.running import Running, cluster
from tests.integration.test_openai import messages_of

pytestmark = pytest.mark.cluster
KEYS = f"""
[[tenants.acme.keys]]
sha256 = "{digest_of("secret")}"

[[tenants.boss.keys]]
sha256 = "{digest_of("admin")}"
rights = ["admin"]
"""
# Nothing is found in caches, so that both doors' calls do the same work.
SETTINGS: dict[str, Any] = {"model": "checkpoint", "max_tokens": 12, "extra_body": {"cache_scope": "none"}}
HI: list[Any] = [{"role": "user", "content": "hi"}]
SCHEMA = {
    "type": "object",
    "properties": {"number": {"enum": [1, 2]}},
    "required": ["number"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "pick", "parameters": SCHEMA}}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("front")
    (folder / "tenants.toml").write_text(KEYS)
    options = ("--dtype", "float32", "--tenants", str(folder / "tenants.toml"))
    with cluster(folder, with_tools(folder / "checkpoint"), "e1p1d1", *options) as started:
        yield started
        started.assert_idle()


def with_tools(folder: Path) -> Path:
    """The demo model, with a place for tools in its template."""
    shutil.copytree("models/demo/checkpoint", folder)
    template = folder / "chat_template.jinja"
    template.write_text("{%- if tools -%}{{- tools | tojson -}}{%- endif -%}" + template.read_text())
    return folder


@pytest.fixture(scope="module")
def front(running: Running) -> Iterator[Front]:
    with serve_http("--address", running.address, "--workers", "2") as started:
        wait_ready(started.url)
        yield started
        running.assert_idle()


@pytest.fixture(scope="module")
def both(running: Running, front: Front) -> Iterator[tuple[openai.OpenAI, openai.OpenAI]]:
    """Clients of the door inside and of the one in front."""
    with client_of(running.http) as inside, client_of(front.url) as outside:
        yield inside, outside


def client_of(url: str, key: str = "secret") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


def picture_messages() -> list[Any]:
    return messages_of(make_questions(5, 3)[2])


CHATS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "pictures": {"messages": picture_messages(), "seed": 3},
    "drawn": {"seed": 2**63, "top_p": 0.9, "presence_penalty": 0.5, "logit_bias": {"5": -3}},
    "logprobs": {"seed": 1, "logprobs": True, "top_logprobs": 3},
    "schema": {
        "seed": 2,
        "max_tokens": 100,
        "frequency_penalty": 2,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
    },
    "tools": {"seed": 2, "max_tokens": 100, "tools": [TOOL], "tool_choice": "required"},
    "choices": {"messages": picture_messages(), "seed": 5, "n": 3},
    "stop": {"temperature": 0, "stop": ["e"], "max_tokens": 40},
}


@pytest.mark.parametrize("name", CHATS)
def test_whole_answers_are_the_same(both: tuple[openai.OpenAI, ...], name: str) -> None:
    asked = {"messages": HI, **SETTINGS, **CHATS[name]}
    inside, outside = (told(each.chat.completions.create(**asked).model_dump()) for each in both)
    assert outside == near(inside)


@pytest.mark.parametrize("name", CHATS)
def test_streams_are_the_same(both: tuple[openai.OpenAI, ...], name: str) -> None:
    asked = {"messages": HI, **SETTINGS, **CHATS[name], "stream": True}
    inside, outside = (
        streamed(each.chat.completions.create(**asked, stream_options={"include_usage": True}))
        for each in both
    )
    assert outside == near(inside)


def test_completions_are_the_same(both: tuple[openai.OpenAI, ...]) -> None:
    asked: dict[str, Any] = {**SETTINGS, "prompt": ["a", "b"], "logprobs": 2, "seed": 1, "n": 2}
    inside, outside = (told(each.completions.create(**asked).model_dump()) for each in both)
    assert len(outside["choices"]) == 4
    assert outside == near(inside)


def test_the_same_models(both: tuple[openai.OpenAI, ...]) -> None:
    inside, outside = ([told(each.model_dump()) for each in client.models.list()] for client in both)
    assert outside == inside


REFUSALS: dict[str, tuple[int, dict[str, Any]]] = {
    "field": (400, {"top_p": 3}),
    "unsayable": (400, {"max_tokens": -1}),
    "picture": (
        400,
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "ftp://x"}}]}]},
    ),
    "form": (400, {"logprobs": "yes"}),
    "tenant": (403, {"extra_body": {"tenant": "other"}}),
    "model": (404, {"model": "other"}),
    "late": (504, {"extra_body": {"timeout": 1e-6}}),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_are_the_same(both: tuple[openai.OpenAI, ...], name: str) -> None:
    status, fields = REFUSALS[name]
    inside, outside = (refusal(each, {"messages": HI, **SETTINGS, **fields}) for each in both)
    assert outside == inside
    assert outside[0] == status


@pytest.mark.parametrize(("key", "status"), [("wrong", 401), ("admin", 403)])
def test_keys_count_the_same(running: Running, front: Front, key: str, status: int) -> None:
    with client_of(running.http, key) as inside, client_of(front.url, key) as outside:
        assert refusal(outside, {"messages": HI, **SETTINGS}) == refusal(inside, {"messages": HI, **SETTINGS})
        assert refusal(outside, {"messages": HI, **SETTINGS})[0] == status


def test_without_a_cluster() -> None:
    with serve_http("--address", "127.0.0.1:1") as front, client_of(front.url) as client:
        assert httpx.get(f"{front.url}/ready").status_code == 503
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(messages=HI, **SETTINGS)
        assert caught.value.response.status_code == 503
        assert caught.value.response.headers["retry-after"] == "1"


async def test_a_worker_that_is_killed_under_load(running: Running, front: Front) -> None:
    """Its calls are lost, others are not, and asked again they are the same; another takes its place."""
    body: dict[str, Any] = {"messages": picture_messages(), "max_tokens": 150, "seed": 4, "ignore_eos": True}
    headers = {"authorization": "Bearer secret"}
    async with httpx.AsyncClient(base_url=f"{front.url}/v1", headers=headers, timeout=60) as client:

        async def ask() -> str | None:
            try:
                answer = await client.post("/chat/completions", json=body)
            except httpx.TransportError:
                return None
            return str(answer.json()["choices"][0]["message"]["content"])

        alone = await ask()
        calls = [asyncio.create_task(ask()) for _ in range(8)]
        with pytest.raises(httpx.TransportError):
            await kill_its_worker(front, client, body | {"stream": True})
        assert set(await asyncio.gather(*calls)) <= {alone, None}
        await asyncio.to_thread(running.assert_idle)
        await asyncio.to_thread(wait_whole, front)
        assert await asyncio.gather(*(ask() for _ in range(4))) == [alone] * 4


async def kill_its_worker(front: Front, client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    """Once the stream has begun; then reads on."""
    async with client.stream("POST", "/chat/completions", json=body) as response:
        os.kill(worker_of(front, response), signal.SIGKILL)
        await response.aread()


def worker_of(front: Front, response: httpx.Response) -> int:
    """The process at the other end."""
    port = response.extensions["network_stream"].get_extra_info("client_addr")[1]
    (found,) = (
        pid
        for pid in front.pids
        if any(each.raddr and each.raddr.port == port for each in psutil.Process(pid).net_connections("tcp"))
    )
    return found


def wait_whole(front: Front) -> None:
    end_s = time.monotonic() + 60
    while len(front.pids) < 2:
        assert time.monotonic() < end_s, "no other worker came"
        time.sleep(0.1)
    wait_ready(front.url)


def refusal(client: openai.OpenAI, asked: dict[str, Any]) -> tuple[int, object]:
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(**asked)
    return caught.value.status_code, caught.value.body


def told(value: Any) -> Any:
    """Without names and times of the call."""
    match value:
        case dict():
            return {key: told(each) for key, each in value.items() if key not in ("id", "created")}
        case list():
            return [told(each) for each in value]
    return value


def near(value: Any) -> Any:
    """Log probabilities as near as rounding in other batches allows."""
    match value:
        case dict():
            return {key: near(each) for key, each in value.items()}
        case list():
            return [near(each) for each in value]
        case float():
            return pytest.approx(value, abs=1e-4)
    return value


def streamed(stream: Any) -> Any:
    """Each choice's pieces put together: how many tokens share a chunk is the moment's."""
    choices: dict[int, dict[str, Any]] = {}
    usage = None
    for chunk in stream:
        usage = chunk.usage or usage
        for part in chunk.choices:
            whole = choices.setdefault(part.index, {"text": "", "calls": [], "logprobs": [], "finish": None})
            add(whole, part)
    return {"choices": choices, "usage": usage.model_dump()}


def add(whole: dict[str, Any], part: Any) -> None:
    calls = part.delta.tool_calls or ()
    whole["text"] += part.delta.content or ""
    whole["calls"] += [(each.function.name, each.function.arguments) for each in calls if each.function.name]
    whole["logprobs"] += [each.model_dump() for each in (part.logprobs.content if part.logprobs else ())]
    whole["finish"] = part.finish_reason or whole["finish"]
