"""The coordinator process: one coordinator, served until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from coordinator.config import CoordinatorConfig
from coordinator.server import Coordinator, Ready
from core.collector import collect_when_idle, settle_collector

OnReady = Callable[[Ready], None]


async def serve(
    config: CoordinatorConfig, *, on_ready: OnReady | None = None, owns_process: bool = False
) -> None:
    """Serves until SIGTERM, SIGINT or Admin.Shutdown; with `owns_process`, garbage is collected when idle.

    SIGHUP has the file of tenants read again, if there is one.
    """
    coordinator = Coordinator(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, coordinator.stopping.set)
    if config.tenants is not None:
        loop.add_signal_handler(signal.SIGHUP, coordinator.tenancy.reload)
    ready = await coordinator.start()
    collecting = None
    if owns_process:
        settle_collector()
        collecting = asyncio.create_task(collect_when_idle(lambda: not coordinator.dispatcher.requests()))
    try:
        if on_ready is not None:
            on_ready(ready)
        await coordinator.stopping.wait()
    finally:
        if collecting is not None:
            collecting.cancel()
        await coordinator.stop()


def run(config: CoordinatorConfig, *, on_ready: OnReady | None = None) -> None:
    """Blocks until the coordinator has stopped; `on_ready` is called on its loop and must be quick.

    Raises ValueError naming what the model folder lacks, OSError if the port is taken.
    """
    import uvloop

    uvloop.run(serve(config, on_ready=on_ready, owns_process=True))
