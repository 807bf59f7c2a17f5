"""The processes of the HTTP door: started together, each started again when it dies, ended together."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from coordinator.access.hosts import HostNames, host_names
from coordinator.front.settings import FrontSettings
from coordinator.front.shared_values import SharedValues
from coordinator.metrics.listener import Headers, MetricsListener, check_hosts
from coordinator.openai.listener import bind_socket

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "coordinator.front.worker")
_FIRST_DELAY_S = 0.1
_MAX_DELAY_S = 5.0
_GRACE_S = 15.0  # past the time to drain; then it is killed


class Workers:
    """`start` once, `stop` once. All listen on one port, and the kernel shares out connections among them.

    Their metrics, taken together, are at `metrics_port` where the settings want that: 0 where not.
    """

    def __init__(self, settings: FrontSettings, num_workers: int, command: Sequence[str] = COMMAND) -> None:
        self._settings = settings
        self._command = tuple(command)
        self._workers = [_Worker(f"http-{index}") for index in range(num_workers)]
        self._keepers: list[asyncio.Task[None]] = []
        self._held: socket.socket | None = None
        self._values: SharedValues | None = None
        self._metrics: MetricsListener | None = None
        self.metrics_port = 0

    @property
    def pids(self) -> list[int]:
        """Of those that run."""
        return [each.process.pid for each in self._workers if each.process is not None]

    async def start(self) -> int:
        """The port, once all are ready.

        Raises OSError if the address cannot be listened on, RuntimeError where a worker does not start.
        """
        self._held = hold_port(self._settings.host, self._settings.port)
        port = int(self._held.getsockname()[1])
        self._settings = replace(self._settings, port=port)
        try:
            await self._open_metrics()
        except OSError:
            await self.stop()
            raise
        launches = (self._launch(each) for each in self._workers)
        failures = [each for each in await asyncio.gather(*launches, return_exceptions=True) if each]
        if failures:
            await self.stop()
            raise failures[0]
        self._keepers = [asyncio.create_task(self._keep(each)) for each in self._workers]
        return port

    async def stop(self) -> None:
        """Returns when all have ended: their answers told, or their time over."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(self._end(each) for each in self._workers))
        if self._held is not None:
            self._held.close()
        if self._metrics is not None:
            await self._metrics.stop()
        if self._values is not None:
            self._values.close()

    def kill(self) -> None:
        """No answer is waited for any more."""
        for worker in self._workers:
            worker.kill()

    async def _open_metrics(self) -> None:
        """Raises OSError where the address cannot be listened on."""
        settings = self._settings
        if settings.metrics_port is None:
            return
        self._values = SharedValues()
        self._settings = replace(settings, metrics_folder=self._values.folder)
        tls = settings.tls
        context = None if tls is None else tls.server_context(wants_client_cert=settings.tls_client_cert)
        names = host_names(settings.metrics_host, "", settings.allow_hosts) if tls is None else None
        self._metrics = MetricsListener(self._values.render, partial(_admit, names))
        self.metrics_port = await self._metrics.start(settings.metrics_host, settings.metrics_port, context)

    def _forget(self, worker: _Worker) -> None:
        """Its process has ended."""
        worker.forget()
        if self._values is not None:
            self._values.forget(worker.name)

    async def _keep(self, worker: _Worker) -> None:
        delay_s = _FIRST_DELAY_S
        while True:
            if worker.process is not None:
                code = await worker.process.wait()
                log.error(
                    "%s: process %d ended (%d), starting another", worker.name, worker.process.pid, code
                )
                self._forget(worker)
            await asyncio.sleep(delay_s)
            try:
                await self._launch(worker)
                delay_s = _FIRST_DELAY_S
            except (OSError, RuntimeError) as error:
                log.error("%s", error)
                delay_s = min(delay_s * 2, _MAX_DELAY_S)

    async def _launch(self, worker: _Worker) -> None:
        """Returns when it is ready. Raises RuntimeError with what it says."""
        process = worker.process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is ours alone
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(replace(self._settings, name=worker.name).to_line())
        said = await process.stdout.readline()
        if said and json.loads(said)["event"] == "ready":
            return
        code = await process.wait()
        self._forget(worker)
        reason = json.loads(said)["message"] if said else f"ended ({code})"
        raise RuntimeError(f"{worker.name}: {reason}")

    async def _end(self, worker: _Worker) -> None:
        process = worker.process
        if process is None:
            return
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(self._settings.drain_s + _GRACE_S):
                await process.wait()
        except TimeoutError:
            log.error("%s: process %d is killed", worker.name, process.pid)
            worker.kill()
            await process.wait()
        self._forget(worker)


@dataclass(slots=True)
class _Worker:
    name: str
    process: asyncio.subprocess.Process | None = field(default=None)

    def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()

    def forget(self) -> None:
        """A process that has ended."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
        self.process = None


def _admit(names: HostNames | None, headers: Headers, _peer: str) -> None:
    """They tell of nobody's requests, and keys are the coordinator's: who can reach the address may read,
    but for pages of web sites.
    """
    check_hosts(names, headers)


def hold_port(host: str, port: int) -> socket.socket:
    """Keeps the port ours while no worker listens; none is connected to what is bound only.

    Raises OSError where somebody else listens there, be it one who would share it.
    """
    bind_socket(host, port).close()
    return bind_socket(host, port, is_shared=True)
