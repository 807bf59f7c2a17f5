"""Runs the gateway process beside the coordinator: starts it, notices its end, starts it again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

from coordinator.media.settings import GatewaySettings

log = logging.getLogger(__name__)

_FIRST_DELAY_S = 0.1
_MAX_DELAY_S = 5.0
_STOP_TIMEOUT_S = 3.0


class GatewayProcess:
    """`on_state(port)` is called with the port when the gateway serves, with None when it does not."""

    def __init__(self, settings: GatewaySettings, on_state: Callable[[int | None], None]) -> None:
        self._settings = settings
        self._on_state = on_state
        self._process: subprocess.Popen[bytes] | None = None
        self._output: asyncio.ReadTransport | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._telling: set[asyncio.Task[None]] = set()
        self._is_passing = asyncio.Lock()  # so that the newest settings are passed last

    async def start(self) -> int:
        """The port of the first gateway; raises RuntimeError if it does not come up."""
        try:
            output, port = await self._launch()
        except RuntimeError:
            await self._end()
            raise
        # A gateway that comes later takes the same port, which clients may remember.
        self._settings = replace(self._settings, port=port)
        self._watcher = asyncio.create_task(self._watch(output))
        return port

    def tell(self, settings: GatewaySettings) -> None:
        """New keys and shares, some time soon, for the gateway that runs and for those that come."""
        self._settings = replace(settings, port=self._settings.port)
        task = asyncio.create_task(self._pass_on())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def stop(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
        await self._end()
        await asyncio.gather(*self._telling)

    async def _watch(self, output: asyncio.StreamReader) -> None:
        delay_s = _FIRST_DELAY_S
        while True:
            await output.read()
            self._on_state(None)
            log.error("media gateway: process %s ended, starting another", self.pid)
            await self._end()
            await asyncio.sleep(delay_s)
            try:
                output, _ = await self._launch()
                delay_s = _FIRST_DELAY_S
            except RuntimeError as error:
                log.error("media gateway: %s", error)
                # Its output has ended: the next turn ends it and starts another.
                delay_s = min(delay_s * 2, _MAX_DELAY_S)

    async def _launch(self) -> tuple[asyncio.StreamReader, int]:
        process = self._process = _spawn()
        await self._pass_on()
        output = asyncio.StreamReader()
        self._output, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(output), process.stdout
        )
        line = await output.readline()
        if not line:
            raise RuntimeError("process did not start")
        port = int(json.loads(line)["port"])
        self._on_state(port)
        return output, port

    async def _pass_on(self) -> None:
        async with self._is_passing:
            if self._process is not None:
                await asyncio.to_thread(_write, self._process, self._settings)

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await asyncio.to_thread(_end_process, process)
        if self._output is not None:
            self._output.close()
            self._output = None


def _spawn() -> subprocess.Popen[bytes]:
    """By Popen rather than the loop's own way, which forks this process with its gRPC threads."""
    command = [sys.executable, "-m", "coordinator.media.gateway"]
    # Unbuffered: what could not be written must not be tried again when the pipe is closed.
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)


def _write(process: subprocess.Popen[bytes], settings: GatewaySettings) -> None:
    """Waits while the pipe is full. A gateway that has ended is started again with the same settings."""
    assert process.stdin is not None
    left = settings.to_line()
    with contextlib.suppress(BrokenPipeError, ValueError):  # ValueError: closed meanwhile
        while left:
            left = left[process.stdin.write(left) :]


def _end_process(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin is not None:
        process.stdin.close()
