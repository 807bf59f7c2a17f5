"""The HTTP door of a coordinator with fake stages, asked over real sockets: inside of it, and in front."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from coordinator.front.caller import Metadata
from coordinator.front.reach import Reach, ReachTls
from coordinator.front.settings import FrontSettings
from coordinator.front.worker import Worker
from coordinator.state import ServedDescription
from tests.coordinator.conftest import Bench, MakeBench, until

CHAT, COMPLETE = "/v1/chat/completions", "/v1/completions"


class HttpBench:
    """A bench and a client of its HTTP door; `front`: the one before it, which is asked then."""

    def __init__(self, bench: Bench, url: str, front: Worker | None = None) -> None:
        self.bench = bench
        self.url = url
        self.front = front
        self.http = httpx.AsyncClient(base_url=url, timeout=60)

    async def close(self) -> None:
        await self.http.aclose()
        if self.front is not None:
            await self.front.drain()
            assert not self.front.door.num_calls

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


@pytest.fixture(params=["inside", "in front"])
def place(request: pytest.FixtureRequest) -> str:
    """Of the door."""
    return str(request.param)


@pytest.fixture
async def make_http(make_bench: MakeBench, place: str) -> AsyncIterator[MakeHttp]:
    """`await make_http("e", "p", "d", setting=…)`, as make_bench."""
    doors = []

    async def make(*roles: str, **settings: Any) -> HttpBench:
        bench: Bench = await make_bench(*roles, http_port=0, **settings)
        made = HttpBench(bench, bench.http_url) if place == "inside" else await stand_before(bench)
        doors.append(made)
        return made

    yield make
    for door in doors:
        await door.close()


async def stand_before(bench: Bench, **settings: Any) -> HttpBench:
    """A door in front, in this process, with the certificates of the coordinator."""
    config = bench.coordinator.config
    tls = config.tls
    reach = None if tls is None else ReachTls(str(tls.ca), str(tls.cert), str(tls.key), tls.name)
    front = Worker(
        FrontSettings(
            Reach(bench.address, reach),
            tls=tls,
            tls_client_cert=config.tls_client_cert,
            stalled_s=config.stalled_reader_s,
            allow_hosts=config.allow_hosts,
            max_connections=config.max_connections,
            **{"drain_s": 0.05} | settings,
        )
    )
    port = front.start()
    await until(lambda: front.door.is_ready == bench.coordinator.cluster.is_ready)
    return HttpBench(bench, f"{'http' if tls is None else 'https'}://127.0.0.1:{port}", front)


def note_descriptions(door: HttpBench) -> list[Metadata]:
    """What proofs a door in front describes the model for from now on, as it asks the coordinator."""
    assert door.front is not None
    link, asked = door.front.door._link, list[Metadata]()
    describe = link.describe

    async def note(proof: Metadata) -> ServedDescription:
        asked.append(proof)
        return await describe(proof)

    link.describe = note  # type: ignore[method-assign]
    return asked


@pytest.fixture
async def door(make_http: MakeHttp) -> HttpBench:
    """Fully disaggregated, text only."""
    return await make_http("e", "p", "d")
