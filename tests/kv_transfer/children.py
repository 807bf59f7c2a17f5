"""Processes of tests.kv_transfer.child, as the test that started them sees them."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from kv_transfer.sender import PeerAddress
from tests.kv_transfer.loopback import until


class Child:
    """Killed at the end of the test, if it did not finish before."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            heard: dict[str, Any] = json.loads(await self.process.stdout.readline())
        return heard

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n".encode())

    async def ask(self, what: str) -> dict[str, Any]:
        self.tell(what)
        return await self.hear()

    async def finish(self) -> dict[str, Any]:
        last = await self.ask("")
        assert await self.process.wait() == 0
        return last

    async def kill(self) -> None:
        """With SIGKILL."""
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        """When this returns, none of its threads runs."""
        self.process.send_signal(signal.SIGSTOP)
        await self.until_stopped()

    async def until_stopped(self) -> None:
        await until(lambda: "T" in self._states())

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def _states(self) -> set[str]:
        """Of all its threads, if they are in the same one."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/stat")
        states = {task.read_text().rpartition(")")[2].split()[0] for task in tasks}
        return states if len(states) == 1 else set()


Start = Callable[..., Awaitable[Child]]


async def start_child(
    role: str, where: str, options: dict[str, Any], module: str = "tests.kv_transfer.child"
) -> Child:
    pipe = asyncio.subprocess.PIPE
    words = (sys.executable, "-m", module, role, where, json.dumps(options))
    return Child(await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, limit=1 << 24))


async def receiving(start: Start, cluster: str, **options: Any) -> tuple[Child, PeerAddress]:
    """A child that receives, and where it is."""
    child = await start("receive", cluster, **options)
    return child, PeerAddress(**await child.hear())
