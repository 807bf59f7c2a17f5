"""One worker of the HTTP door.

    python -m coordinator.front.worker   < settings   > one JSON line

It says {"event": "ready"} or {"event": "failed", "message": …}. SIGTERM, or the end of its input, has it take
no more connections, and end once its answers are told or their time is over.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys

from prometheus_client import CollectorRegistry
from starlette.routing import Route

from coordinator.access.hosts import host_names
from coordinator.front.door import RemoteDoor
from coordinator.front.metrics import FrontMetrics
from coordinator.front.settings import FrontSettings, parse_settings
from coordinator.front.shared_values import share_values
from coordinator.front.watched import WatchedApp
from coordinator.listening.crowd import Crowd
from coordinator.openai.app import make_app
from coordinator.openai.listener import HttpListener
from coordinator.openai.served import Served
from core.clock import MonotonicClock
from core.collector import collect_when_idle, settle_collector
from core.log_lines import start_log
from core.open_files import allow_connections
from core.version import version

_MAX_SETTINGS_BYTES = 1 << 20
_CLOSING_S = 5.0  # in which callers are told that their time is over


class Worker:
    """`start`, then perhaps `drain`; built inside a running event loop."""

    def __init__(self, settings: FrontSettings) -> None:
        self._settings = settings
        clock, self.registry = MonotonicClock(), CollectorRegistry()
        if settings.metrics_folder:
            share_values(settings.metrics_folder, settings.name)
        metrics = FrontMetrics(self.registry)
        self.door = RemoteDoor(settings.reach, clock, metrics)
        served = Served(
            enter=self.door.enter,
            is_ready=lambda: self.door.is_ready,
            is_open=self.door.is_open,
            version=version(),
            stalled_s=settings.stalled_s,
        )
        tls = settings.tls
        context = None if tls is None else tls.server_context(wants_client_cert=settings.tls_client_cert)
        hosts = host_names(settings.host, "", settings.allow_hosts) if tls is None else None
        app = make_app(served, hosts=hosts)
        paths = [route.path for route in app.routes if isinstance(route, Route)]
        watched = WatchedApp(app, paths, metrics, clock)
        self.crowd = Crowd("http", settings.max_connections, "max_connections", metrics.note_refusal)
        grace_s = settings.drain_s + _CLOSING_S
        self._http = HttpListener(watched, grace_s, context, settings.stalled_s, self.crowd)
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> int:
        """The port. Raises OSError if the address cannot be listened on."""
        port = self._http.open(self._settings.host, self._settings.port, is_shared=True)
        self._watching = asyncio.create_task(self.door.watch_forever())
        return port

    async def drain(self) -> None:
        """Takes no more, waits for the answers under way, and ends those that take too long with an error."""
        loop = asyncio.get_running_loop()
        ending = loop.call_later(self._settings.drain_s, self.door.end_calls)
        await self._http.close()
        ending.cancel()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self.door.close()


async def _run() -> int:
    stdin = await _open_stdin()
    settings = parse_settings(await stdin.readline())
    start_log(settings.log_level, settings.log_format, settings.name)
    allow_connections(settings.max_connections)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    worker = Worker(settings)
    try:
        worker.start()
    except OSError as error:
        _say(event="failed", message=str(error))
        return 1
    settle_collector()
    collecting = asyncio.create_task(collect_when_idle(lambda: not worker.door.num_calls))
    _say(event="ready")
    ends = {asyncio.create_task(stop.wait()), asyncio.create_task(stdin.read())}
    _, waiting = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for task in (collecting, *waiting):
        task.cancel()
    await worker.drain()
    return 0


def _say(**values: str) -> None:
    print(json.dumps(values), flush=True)


async def _open_stdin() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=_MAX_SETTINGS_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    return reader


def main() -> None:
    import uvloop

    sys.exit(uvloop.run(_run()))


if __name__ == "__main__":
    main()
