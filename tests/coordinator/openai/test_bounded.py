"""HTTP connections past the bound, over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import httpx
import pytest

from coordinator.listening.crowd import Crowd
from coordinator.openai import bounded
from coordinator.openai.bounded import MAX_EXTRAS
from tests.coordinator.conftest import until
from tests.coordinator.openai.conftest import HttpBench, MakeHttp, error_of
from tests.coordinator.openai.test_patience import all_of, connection

Fill = Callable[[int], object]


@pytest.fixture
async def door(make_http: MakeHttp) -> HttpBench:
    """Of two connections; the setting bounds those of gRPC, too, which a door in front needs more of."""
    made = await make_http("epd", max_connections=20)
    assert crowd_of(made).most == 20
    crowd_of(made).most = 2
    return made


@pytest.fixture
async def fill(door: HttpBench) -> AsyncIterator[Fill]:
    """`await fill(count)`: so many connections that ask nothing; they end with the test."""
    async with AsyncExitStack() as stack:

        async def open_some(count: int) -> None:
            for _ in range(count):
                await stack.enter_async_context(connection(door))

        yield open_some
    await until(lambda: not crowd_of(door).num_inside)


def crowd_of(door: HttpBench) -> Crowd:
    """Of the door's connections."""
    if door.front is not None:
        return door.front.crowd
    return next(each for each in door.bench.coordinator.watch.crowds._crowds if each.name == "http")


async def full(door: HttpBench, fill: Fill) -> None:
    await fill(2)
    await until(lambda: crowd_of(door).num_inside == 2)


async def test_one_too_many_is_told_when_to_come_back(door: HttpBench, fill: Fill) -> None:
    await full(door, fill)
    for number in (1, 2):
        answer = await door.chat()
        error = error_of(answer, 503)
        assert (error["code"], answer.headers["retry-after"]) == ("too_many_connections", "1")
        assert "max_connections" in error["message"]
        assert answer.headers["connection"] == "close"
        assert crowd_of(door).num_refused == number


async def test_probes_are_answered(door: HttpBench, fill: Fill) -> None:
    await full(door, fill)
    for path in ("/health", "/ready", *(() if door.front else ("/metrics",))):
        answer = await door.http.get(path)
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    if not door.front:
        metrics = (await door.http.get("/metrics")).text
        for line in ('inside{door="http"} 2.0', 'limit{door="http"} 2.0', 'refused_total{door="http"} 0.0'):
            assert f"\nelasticmm:door_{line}" in metrics


async def test_there_is_room_again_when_one_goes(door: HttpBench) -> None:
    async with connection(door):
        async with connection(door):
            await until(lambda: crowd_of(door).num_inside == 2)
            error_of(await door.chat(), 503)
        await until(lambda: crowd_of(door).num_inside == 1)
        assert (await door.chat()).status_code == 200
    await door.bench.assert_idle()


async def test_beyond_all_bounds_nothing_is_read(door: HttpBench, fill: Fill) -> None:
    await full(door, fill)
    await fill(MAX_EXTRAS)
    async with connection(door) as (reader, _):
        answer = await all_of(reader)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: 1\r\n" in head
    assert json.loads(body)["error"]["code"] == "too_many_connections"


async def test_who_is_one_too_many_and_asks_nothing_is_dropped(
    door: HttpBench, fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "_EXTRA_S", 0.05)
    await full(door, fill)
    async with connection(door) as (reader, _):
        assert await all_of(reader) == b""


async def test_a_body_to_a_full_door(door: HttpBench, fill: Fill) -> None:
    await full(door, fill)
    error_of(await door.chat("x" * 50_000), 503)


async def test_one_too_many_asks_once(door: HttpBench, fill: Fill) -> None:
    await full(door, fill)
    async with connection(door) as (reader, writer):
        writer.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n" * 2)
        answer = await all_of(reader)
    assert answer.count(b"HTTP/1.1 200 ") == answer.count(b"HTTP/1.1 ") == 1


async def test_streams_go_on_while_others_are_refused(door: HttpBench) -> None:
    stage = door.bench.stages[0]
    stage.pause_at = 2
    streaming = asyncio.create_task(door.chat_stream(max_tokens=4))
    await until(lambda: crowd_of(door).num_inside == 1)
    async with connection(door):
        await until(lambda: crowd_of(door).num_inside == 2)
        async with httpx.AsyncClient(base_url=door.url) as another:
            error_of(await another.get("/v1/models"), 503)
        stage.resume()
        assert (await streaming)[-1] == "[DONE]"
    await door.bench.assert_idle()
