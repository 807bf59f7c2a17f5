"""Processes of tests.kv_transfer.child, as the test that started them sees them.

They are forked from one that has imported what they need: importing torch takes each of them seconds.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from kv_transfer.sender import PeerAddress
from tests.kv_transfer.loopback import until

MODULE, MODULE_IN_PLACE = "tests.kv_transfer.child", "tests.kv_transfer.in_place.child"
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([MODULE, MODULE_IN_PLACE])
_LINE_BYTES = 1 << 24


class Child:
    """Killed at the end of the test, if it did not finish before."""

    def __init__(
        self,
        process: multiprocessing.process.BaseProcess,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        assert process.pid is not None
        self._process = process
        self._reader, self._writer = reader, writer
        self.pid = process.pid

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(60):
            heard: dict[str, Any] = json.loads(await self._reader.readline())
        return heard

    def tell(self, word: str) -> None:
        self._writer.write(f"{word}\n".encode())

    async def ask(self, what: str) -> dict[str, Any]:
        self.tell(what)
        return await self.hear()

    async def finish(self) -> dict[str, Any]:
        last = await self.ask("")
        assert await self.wait() == 0
        return last

    async def wait(self) -> int:
        """Until it is gone; its exit code, or minus the signal that ended it."""
        await until(lambda: self._process.exitcode is not None)
        self._writer.close()
        assert self._process.exitcode is not None
        return self._process.exitcode

    async def kill(self) -> None:
        """With SIGKILL; does nothing to one that is gone."""
        self._process.kill()
        await self.wait()

    async def stop(self) -> None:
        """When this returns, none of its threads runs."""
        os.kill(self.pid, signal.SIGSTOP)
        await self.until_stopped()

    async def until_stopped(self) -> None:
        await until(lambda: "T" in self._states())

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _states(self) -> set[str]:
        """Of all its threads, if they are in the same one."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/stat")
        states = {task.read_text().rpartition(")")[2].split()[0] for task in tasks}
        return states if len(states) == 1 else set()


Start = Callable[..., Awaitable[Child]]


async def start_child(role: str, where: str, options: dict[str, Any], module: str = MODULE) -> Child:
    ours, theirs = socket.socketpair()
    with theirs:
        process = _FORKS.Process(target=_run, args=(theirs, module, role, where, options), daemon=True)
        await asyncio.to_thread(process.start)  # the first one waits for what all need
    reader, writer = await asyncio.open_connection(sock=ours, limit=_LINE_BYTES)
    return Child(process, reader, writer)


def _run(line: socket.socket, module: str, role: str, where: str, options: dict[str, Any]) -> None:
    """In the child: what it hears and says goes over `line`."""
    sys.stdin, sys.stdout = line.makefile("r"), line.makefile("w")
    asyncio.run(importlib.import_module(module).ROLES[role](where, **options))


async def receiving(start: Start, cluster: str, **options: Any) -> tuple[Child, PeerAddress]:
    """A child that receives, and where it is."""
    child = await start("receive", cluster, **options)
    return child, PeerAddress(**await child.hear())
