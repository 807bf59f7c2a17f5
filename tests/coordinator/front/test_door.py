"""A door in front of a coordinator that comes and goes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from coordinator.access.keys import digest_of
from coordinator.errors import UnavailableError
from coordinator.front.channels import STREAMS_PER_CHANNEL
from coordinator.front.door import RemoteDoor
from coordinator.front.metrics import FrontMetrics
from coordinator.front.reach import Reach, ReachTls
from coordinator.tracing.parent import TraceParent
from core.clock import ManualClock
from tests.coordinator.conftest import Bench, MakeBench, until
from tests.coordinator.openai.conftest import (
    CHAT,
    HttpBench,
    error_of,
    events_of,
    note_descriptions,
    stand_before,
)
from tests.coordinator.openai.scripted import MESSAGES

BODY = {"messages": MESSAGES, "max_tokens": 4, "seed": 1}
Stand = Callable[..., Any]


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    """`await stand(bench, setting=…)`: a door in front of it, which holds nothing in the end."""
    doors: list[HttpBench] = []

    async def make(bench: Bench, **settings: Any) -> HttpBench:
        doors.append(await stand_before(bench, **settings))
        return doors[-1]

    yield make
    for door in doors:
        await door.close()


async def test_the_coordinator_is_asked_once_for_many_calls(make_bench: MakeBench, stand: Stand) -> None:
    bench = await make_bench("epd")
    door = await stand(bench)
    asked = note_descriptions(door)
    for _ in range(3):
        assert (await door.chat()).status_code == 200
    assert asked == [()]


async def test_a_key_that_is_taken_away_opens_nothing(
    make_bench: MakeBench, stand: Stand, tmp_path: Path
) -> None:
    """Although its bearer was let in a moment ago."""
    file = tmp_path / "tenants.toml"
    file.write_text(f'[[tenants.a.keys]]\nsha256 = "{digest_of("secret")}"\n')
    bench = await make_bench("epd", tenants=file)
    door = await stand(bench)
    door.http.headers["authorization"] = "Bearer secret"
    assert (await door.chat()).status_code == 200
    file.write_text(f'[[tenants.a.keys]]\nsha256 = "{digest_of("other")}"\n')
    bench.coordinator.tenancy.reload()
    refused = error_of(await door.chat(), 401)
    assert refused["code"] == "unauthenticated"
    assert "the one that was given is not known here" in refused["message"]


async def test_a_trace_goes_on(make_bench: MakeBench, stand: Stand) -> None:
    bench = await make_bench("epd")
    door = await stand(bench)
    parents: list[TraceParent | None] = []
    submit = bench.coordinator.dispatcher.submit
    bench.coordinator.dispatcher.submit = lambda request: (parents.append(request.trace), submit(request))
    parent = f"00-{'1' * 32}-{'2' * 16}-01"
    headers = {"traceparent": parent, "tracestate": "a=b"}
    assert (await door.http.post(CHAT, json=BODY, headers=headers)).status_code == 200
    assert parents == [TraceParent(parent, "a=b")]


async def test_without_a_coordinator_callers_are_told_to_come_back(
    make_bench: MakeBench, stand: Stand
) -> None:
    bench = await make_bench("epd")
    door = await stand(bench)
    await bench.coordinator.stop()
    await until(lambda: not door.front.door.is_ready)
    error_of(await door.http.get("/ready"), 503)
    response = await door.chat()
    assert error_of(response, 503)["message"] == "the coordinator does not answer"
    assert response.headers["retry-after"] == "1"
    assert (await door.http.get("/health")).status_code == 200


async def test_the_next_coordinator_is_found(make_bench: MakeBench, stand: Stand) -> None:
    """And what the last one said is forgotten: another model may have the place."""
    bench = await make_bench("epd")
    door = await stand(bench)
    assert (await door.chat(logprobs=True)).status_code == 200
    port = bench.coordinator.port
    await bench.coordinator.stop()
    await until(lambda: not door.front.door.is_ready)
    await make_bench("epd", port=port, model_name="another")
    await until(lambda: door.front.door.is_ready)
    answer = (await door.chat(logprobs=True)).json()
    assert answer["model"] == "another"
    assert len(answer["choices"][0]["logprobs"]["content"]) == 4


async def test_what_is_too_large_for_the_coordinator_is_refused_there(
    make_bench: MakeBench, stand: Stand
) -> None:
    bench = await make_bench("epd", message_bytes=3000)
    door = await stand(bench)
    error = error_of(await door.chat("x" * 3100), 413)
    assert (error["param"], error["code"]) == ("messages", "too_large")


async def test_more_streams_than_a_connection_carries(make_bench: MakeBench, stand: Stand) -> None:
    num_streams = STREAMS_PER_CHANNEL + 28
    bench = await make_bench("epd", max_waiting=1000)
    door = await stand(bench)
    bench.stages[0].pause_at = 2
    calls = [asyncio.create_task(door.chat(n=32, stream=True)) for _ in range(num_streams // 32)]
    await until(lambda: len(bench.stages[0].jobs) == num_streams)
    assert len(door.front.door._link.channels) == 2
    bench.stages[0].resume()
    for response in await asyncio.gather(*calls):
        assert events_of(response)[-1] == "[DONE]"
    assert not door.front.door.num_calls
    await bench.assert_idle()


async def test_draining_waits_for_answers(make_bench: MakeBench, stand: Stand) -> None:
    bench = await make_bench("epd")
    door = await stand(bench, drain_s=30.0)
    bench.stages[0].pause_at = 2
    call = asyncio.create_task(door.chat(stream=True))
    await until(lambda: bench.stages[0].jobs)
    draining = asyncio.create_task(door.front.drain())
    await until(lambda: is_closed(door))
    bench.stages[0].resume()
    assert events_of(await call)[-1] == "[DONE]"
    await draining


async def test_answers_that_take_too_long_end_with_an_error(make_bench: MakeBench, stand: Stand) -> None:
    bench = await make_bench("epd")
    door = await stand(bench, drain_s=0.05)
    bench.stages[0].pause_at = 2
    call = asyncio.create_task(door.chat(stream=True))
    await until(lambda: bench.stages[0].jobs)
    await door.front.drain()
    events = (await call).text.strip().split("\n\n")
    error = json.loads(events[-1].removeprefix("data: "))["error"]
    assert (error["message"], error["code"]) == ("this door is shutting down", "unavailable")
    await until(lambda: not bench.num_requests)
    bench.stages[0].resume()


async def test_certificates_that_are_gone_are_no_fault_of_the_callers(tmp_path: Path) -> None:
    door = RemoteDoor(
        Reach("127.0.0.1:1", ReachTls(ca=str(tmp_path / "gone"))),
        ManualClock(),
        FrontMetrics(CollectorRegistry()),
    )
    with pytest.raises(UnavailableError, match="cannot be reached"):
        await door.enter(None, "")
    await door.close()


def is_closed(door: HttpBench) -> bool:
    return all(not server.is_serving() for server in door.front._http._server.servers)
