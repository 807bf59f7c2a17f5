"""The HTTP door of a coordinator with fake stages, asked over real sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from tests.coordinator.conftest import Bench, MakeBench

CHAT, COMPLETE = "/v1/chat/completions", "/v1/completions"


class HttpBench:
    """A bench and a client of its HTTP door."""

    def __init__(self, bench: Bench, http: httpx.AsyncClient) -> None:
        self.bench = bench
        self.http = http

    async def chat(self, text: Any = "hi", **fields: Any) -> httpx.Response:
        messages = [{"role": "user", "content": text}]
        return await self.http.post(CHAT, json={"messages": messages, "max_tokens": 4, "seed": 1} | fields)

    async def complete(self, prompt: Any = "hi", **fields: Any) -> httpx.Response:
        return await self.http.post(COMPLETE, json={"prompt": prompt, "max_tokens": 4, "seed": 1} | fields)

    async def chat_stream(self, **fields: Any) -> list[Any]:
        return events_of(await self.chat(stream=True, **fields))


def events_of(response: httpx.Response) -> list[Any]:
    """The data of a stream's events; "[DONE]" as it is."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def error_of(response: httpx.Response, status: int = 400) -> Any:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return error


MakeHttp = Callable[..., Any]


@pytest.fixture
async def make_http(make_bench: MakeBench) -> AsyncIterator[MakeHttp]:
    """`await make_http("e", "p", "d", setting=…)`, as make_bench."""
    clients = []

    async def make(*roles: str, **settings: Any) -> HttpBench:
        bench: Bench = await make_bench(*roles, http_port=0, **settings)
        client = httpx.AsyncClient(base_url=bench.http_url, timeout=20)
        clients.append(client)
        return HttpBench(bench, client)

    yield make
    for client in clients:
        await client.aclose()


@pytest.fixture
async def door(make_http: MakeHttp) -> HttpBench:
    """Fully disaggregated, text only."""
    return await make_http("e", "p", "d")
