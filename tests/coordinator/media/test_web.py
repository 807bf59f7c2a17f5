"""The web server of these tests: what it leaves open would be an error of a later test."""

from __future__ import annotations

import asyncio
import gc

from tests.coordinator.media.conftest import WebServer


async def test_who_leaves_without_a_word_leaves_nothing_open(web: WebServer) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", web.port)
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(0.05)
    gc.collect()  # pytest raises what is warned of there
    assert web.requests == []
