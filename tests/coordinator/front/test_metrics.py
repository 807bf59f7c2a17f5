"""What the door in front tells Prometheus."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from coordinator.front.reach import Reach
from coordinator.front.settings import FrontSettings
from coordinator.front.shared_values import SharedValues
from coordinator.front.workers import Workers
from tests.coordinator.conftest import Bench, MakeBench
from tests.coordinator.front.test_door import Stand, stand
from tests.coordinator.front.test_workers import BODY, Start, becomes, chat, start
from tests.coordinator.openai.conftest import CHAT, HttpBench

__all__ = ["stand", "start"]

Value = Callable[..., float]


def value_in(registry: CollectorRegistry) -> Value:
    """`value("http_requests_total", path=…)`: 0 where there is none."""

    def value(name: str, **labels: str) -> float:
        return registry.get_sample_value(f"elasticmm:{name}", labels) or 0

    return value


@pytest.fixture
async def door(make_bench: MakeBench, stand: Stand) -> HttpBench:
    made: HttpBench = await stand(await make_bench("epd"))
    return made


@pytest.fixture
def value(door: HttpBench) -> Value:
    assert door.front is not None
    return value_in(door.front.registry)


async def test_requests_by_path_and_status(door: HttpBench, value: Value) -> None:
    await door.chat()
    await door.chat_stream()
    await door.chat(max_tokens=-1)
    await door.complete()
    for path in ("/no/such", "/health", "/v1/models/x"):
        await door.http.get(path)
    await door.bench.until(lambda: not value("http_requests_in_flight"))
    counts = {
        (path, code): value("http_requests_total", path=path, code=code)
        for path in (CHAT, "/v1/completions", "/health", "/v1/models/x", "other")
        for code in ("200", "400", "404")
    }
    assert {key: count for key, count in counts.items() if count} == {
        (CHAT, "200"): 2,
        (CHAT, "400"): 1,
        ("/v1/completions", "200"): 1,
        ("/health", "200"): 1,
        ("other", "404"): 2,
    }


async def test_who_finds_it_full_is_counted_beside_the_pages(door: HttpBench, value: Value) -> None:
    assert door.front is not None
    door.front.crowd.most = 0
    assert (await door.chat()).status_code == 503
    assert (await door.http.get("/health")).status_code == 200
    assert value("http_refused_total") == door.front.crowd.num_refused == 1
    assert value("http_requests_total", path=CHAT, code="503") == 0


async def test_the_first_byte_is_timed_once_and_a_stream_is_in_flight_to_its_end(
    door: HttpBench, value: Value
) -> None:
    [stage] = door.bench.stages
    stage.pause_at = 2
    body = {**BODY, "stream": True}
    async with door.http.stream("POST", CHAT, json=body) as response:
        lines = response.aiter_lines()
        assert (await anext(lines)).startswith("data: ")
        assert value("http_time_to_first_byte_seconds_count", path=CHAT) == 1
        assert (value("http_requests_in_flight"), value("http_requests_total", path=CHAT, code="200")) == (
            1,
            0,
        )
        stage.resume()
        assert [line async for line in lines if line][-1] == "data: [DONE]"
    await door.bench.until(lambda: value("http_requests_total", path=CHAT, code="200") == 1)
    assert value("http_time_to_first_byte_seconds_count", path=CHAT) == 1


async def test_a_client_that_goes_before_its_answer_is_counted_apart(door: HttpBench, value: Value) -> None:
    [stage] = door.bench.stages
    stage.pause_at = 2
    asking = asyncio.create_task(door.chat())
    await door.bench.until(lambda: door.bench.coordinator.dispatcher.num_running)
    asking.cancel()
    await door.bench.until(lambda: value("http_requests_total", path=CHAT, code="499") == 1)
    assert value("http_time_to_first_byte_seconds_count", path=CHAT) == 0
    stage.resume()


async def test_the_coordinator_comes_and_goes(make_bench: MakeBench, stand: Stand) -> None:
    bench: Bench = await make_bench("e")
    door = await stand(bench)
    value = value_in(door.front.registry)
    workers = {name: lambda name=name: value("http_workers", coordinator=name) for name in STATES}

    def is_only(state: str) -> bool:
        return {name: count() for name, count in workers.items()} == {**STATES, state: 1}

    await bench.until(lambda: is_only("incomplete"))
    await bench.add("p", "d")
    await bench.until(lambda: is_only("ready"))
    assert (await door.chat(model="another")).status_code == 404
    assert value("http_coordinator_failures_total", code="NOT_FOUND") == 1
    await bench.coordinator.server.stop(0)
    await bench.until(lambda: is_only("lost"))
    assert value("http_coordinator_losses_total") == 1


STATES = {"ready": 0.0, "incomplete": 0.0, "lost": 0.0}


async def scraped(port: int) -> dict[tuple[Any, ...], float]:
    """Of all workers, by name and labels in order of their names."""
    async with httpx.AsyncClient() as http:
        page = (await http.get(f"http://127.0.0.1:{port}/metrics")).raise_for_status().text
    return {
        (
            sample.name.removeprefix("elasticmm:"),
            *(sample.labels[name] for name in sorted(sample.labels)),
        ): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


async def shows(workers: Workers, **wanted: float) -> None:
    """Once all of these are what is told: ready, answered, first bytes, in flight."""
    names: dict[str, tuple[str, ...]] = {
        "ready": ("http_workers", "ready"),
        "answered": ("http_requests_total", "200", CHAT),
        "first_bytes": ("http_time_to_first_byte_seconds_count", CHAT),
        "in_flight": ("http_requests_in_flight",),
    }

    async def are_told() -> bool:
        found = await scraped(workers.metrics_port)
        return {name: found.get(names[name]) for name in wanted} == wanted

    await becomes(are_told)


async def test_workers_are_summed_and_those_that_are_killed_take_no_count_along(
    make_bench: MakeBench, start: Start
) -> None:
    bench: Bench = await make_bench("epd")
    workers, port = await start(FrontSettings(Reach(bench.address), drain_s=1.0, metrics_port=0), 2)
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, limits=limits) as http:
        await shows(workers, ready=2)
        assert {await chat(http) for _ in range(12)} == {200}
        [stage] = bench.stages
        stage.pause_at = 2
        asking = [asyncio.create_task(chat(http)) for _ in range(12)]
        await bench.until(lambda: bench.coordinator.dispatcher.num_running == 12)
        await shows(workers, answered=12, first_bytes=12, in_flight=12)
        for pid in workers.pids:
            os.kill(pid, signal.SIGKILL)
        assert set(await asyncio.gather(*asking)) == {0}
        stage.resume()
        await shows(workers, ready=2, answered=12, first_bytes=12, in_flight=0)
        assert await chat(http) == 200
        await shows(workers, ready=2, answered=13, first_bytes=13, in_flight=0)
    await bench.assert_idle()


async def test_the_folder_of_values_goes_with_the_workers(start: Start) -> None:
    workers, _ = await start(FrontSettings(Reach("127.0.0.1:1"), drain_s=0.1, metrics_port=0), 1)
    values = workers._values
    assert (await scraped(workers.metrics_port))["http_workers", "lost"] == 1
    assert files_in(values)
    await workers.stop()
    assert files_in(values) is None


async def test_no_web_site_reads_them_by_its_own_name(start: Start) -> None:
    settings = FrontSettings(Reach("127.0.0.1:1"), drain_s=0.1, metrics_port=0, allow_hosts=("prom.example",))
    workers, _ = await start(settings, 1)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{workers.metrics_port}") as client:
        for host, status in (("prom.example", 200), ("127.0.0.1", 200), ("evil.example", 421)):
            answer = await client.get("/metrics", headers={"host": host})
            assert (answer.status_code, "elasticmm:" in answer.text) == (status, status == 200)


async def test_a_port_that_is_taken_is_said(start: Start) -> None:
    workers, _ = await start(FrontSettings(Reach("127.0.0.1:1"), drain_s=0.1, metrics_port=0), 1)
    with pytest.raises(OSError, match="address already in use"):
        await start(FrontSettings(Reach("127.0.0.1:1"), metrics_port=workers.metrics_port), 1)


def files_in(values: SharedValues) -> list[str] | None:
    """None: there is no such folder."""
    folder = Path(values.folder)
    return sorted(each.name for each in folder.iterdir()) if folder.exists() else None


def test_nothing_is_told_before_a_worker_is_there() -> None:
    values = SharedValues()
    assert values.render("text/plain")[1] == b""
    values.close()
