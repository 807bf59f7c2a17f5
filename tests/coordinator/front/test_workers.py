"""Processes of the door: real ones before a coordinator in this process, and scripted ones."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import psutil
import pytest

from coordinator.front.reach import Reach
from coordinator.front.settings import FrontSettings
from coordinator.front.workers import COMMAND, Workers
from tests.coordinator.conftest import Bench, MakeBench
from tests.coordinator.openai.conftest import CHAT
from tests.coordinator.openai.scripted import MESSAGES

BODY = {"messages": MESSAGES, "max_tokens": 4, "seed": 1}
NOWHERE = Reach("127.0.0.1:1")
Start = Callable[..., Any]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """`await start(settings, 2)`: workers that have started, and end with the test."""
    made: list[Workers] = []

    async def make(settings: FrontSettings, num_workers: int, command: Any = COMMAND) -> tuple[Workers, int]:
        workers = Workers(settings, num_workers, command)
        port = await workers.start()
        made.append(workers)
        return workers, port

    yield make
    for workers in made:
        pids = workers.pids
        await workers.stop()
        assert not workers.pids
        assert not any(map(psutil.pid_exists, pids))


async def becomes(holds: Callable[[], Any]) -> None:
    """Processes take their time."""
    async with asyncio.timeout(60):
        while not await holds():
            await asyncio.sleep(0.05)


async def get(port: int, path: str) -> int:
    """On a connection of its own; 0 where that is lost."""
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            return (await http.get(path)).status_code
    except httpx.TransportError:
        return 0


async def chat(http: httpx.AsyncClient) -> int:
    try:
        return (await http.post(CHAT, json=BODY)).status_code
    except httpx.TransportError:
        return 0


async def test_one_that_is_killed_is_replaced(make_bench: MakeBench, start: Start) -> None:
    """The others serve meanwhile, and nothing of its calls stays at the coordinator."""
    bench: Bench = await make_bench("epd")
    workers, port = await start(FrontSettings(Reach(bench.address), drain_s=1.0), 2)
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, limits=limits) as http:
        await becomes(lambda: all_ready(port))
        before = set(workers.pids)
        calls = [asyncio.create_task(chat(http)) for _ in range(24)]
        os.kill(workers.pids[0], signal.SIGKILL)
        statuses = await asyncio.gather(*calls)
        assert set(statuses) <= {0, 200}
        assert 200 in statuses

        async def is_whole() -> bool:
            return len(workers.pids) == 2 and set(workers.pids) != before and await chat(http) == 200

        await becomes(is_whole)
        assert len(before & set(workers.pids)) == 1
    await bench.assert_idle()


async def all_ready(port: int) -> bool:
    """So many connections that every worker has some."""
    return await asyncio.gather(*(get(port, "/ready") for _ in range(16))) == [200] * 16


async def test_the_port_is_theirs_alone(start: Start) -> None:
    settings = FrontSettings(NOWHERE, drain_s=0.1)
    _, port = await start(settings, 1)
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
        await start(FrontSettings(NOWHERE, port=port), 1)
    assert await get(port, "/health") == 200


async def test_one_that_does_not_start_says_why(start: Start) -> None:
    say = """print('{"event": "failed", "message": "no room"}')"""
    with pytest.raises(RuntimeError, match="^http-0: no room$"):
        await start(FrontSettings(NOWHERE), 2, (sys.executable, "-c", say))
    with pytest.raises(RuntimeError, match=r"^http-0: ended \(3\)$"):
        await start(FrontSettings(NOWHERE), 1, (sys.executable, "-c", "raise SystemExit(3)"))


async def test_the_stubborn_are_killed() -> None:
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    script = f"""{ignore}; print('{{"event": "ready"}}', flush=True); signal.pause()"""
    workers = Workers(FrontSettings(NOWHERE), 2, (sys.executable, "-c", script))
    await workers.start()
    pids = workers.pids
    stopping = asyncio.create_task(workers.stop())
    await asyncio.sleep(0)
    workers.kill()
    await stopping
    assert not any(map(psutil.pid_exists, pids))


async def test_a_worker_ends_with_who_started_it() -> None:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    process.stdin.write(FrontSettings(NOWHERE, drain_s=0.1).to_line())
    assert b"ready" in await process.stdout.readline()
    process.stdin.close()
    async with asyncio.timeout(60):
        assert await process.wait() == 0
