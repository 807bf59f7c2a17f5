"""One coordinator for all examples of a module, on a loop that runs while an example does."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import httpx
import pytest

from coordinator.config import CoordinatorConfig, MediaLimits
from coordinator.media.gateway import serving
from coordinator.server import Coordinator
from tests.coordinator.conftest import CHECKPOINT, TOKEN, Bench
from tests.coordinator.fake_stage import fake_token

T = TypeVar("T")

_BOUND_S = 60.0  # of one example; nothing takes so long but what is stuck


class Target:
    """A bench with all doors open; every wait is bounded."""

    def __init__(self, runner: asyncio.Runner, bench: Bench, http: httpx.AsyncClient) -> None:
        self._runner = runner
        self.bench = bench
        self.http = http

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Raises TimeoutError where it is stuck."""
        return self._runner.run(asyncio.wait_for(work, _BOUND_S))

    def check_serves(self) -> None:
        """Nothing is held, and an ordinary request has the tokens that it has always."""
        self.run(self._check_serves())

    async def _check_serves(self) -> None:
        await self.bench.assert_idle()
        answer = await self.bench.ask(text="hello", max_tokens=5, seed=1)
        assert answer.token_ids == [fake_token(1, index) for index in range(5)]
        await self.bench.assert_idle()
        self.bench.coordinator.answers.check_integrity()
        gateway = self.bench.gateway
        assert gateway is not None
        await self.bench.until(lambda: not gateway.store.num_leases)


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    """Few blocks, so that an answer without a limit is short."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            bench = runner.run(_start(stack))
            http = httpx.AsyncClient(base_url=bench.http_url, timeout=_BOUND_S)
            stack.push_async_callback(http.aclose)
            found = Target(runner, bench, http)
            found.check_serves()
            yield found
            found.check_serves()
        finally:
            runner.run(stack.aclose())


async def _start(stack: AsyncExitStack) -> Bench:
    config = CoordinatorConfig(
        model_path=CHECKPOINT,
        cluster_token=TOKEN,
        start_gateway=False,
        http_port=0,
        shutdown_grace_s=0.05,
        heartbeat_timeout_s=1e6,  # the loop stands still between examples
        message_bytes=1_000_000,
        media=MediaLimits(media_bytes=50_000, media_pixels=300_000, url_timeout_s=1),
    )
    coordinator = Coordinator(config)
    ready = await coordinator.start()
    stack.push_async_callback(coordinator.stop)
    bench = Bench(coordinator, stack)
    bench.http_url = ready.http_url
    bench.gateway = await stack.enter_async_context(serving(coordinator.gateway_settings()))
    coordinator.note_gateway(bench.gateway.port)
    stack.push_async_callback(bench.channel.close)
    await bench.add("epd", blocks=8)
    return bench
