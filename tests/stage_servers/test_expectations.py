"""A peer's push waits for the command, and only as long as there is hope."""

from __future__ import annotations

import asyncio

import pytest

from kv_transfer.errors import UnknownRequest
from stage_servers.expectations import Expectations

KEY = ("req", 0)


async def test_waits_until_the_command_comes() -> None:
    expectations = Expectations()
    waiting = asyncio.create_task(expectations.wait(KEY))
    await asyncio.sleep(0)
    assert not waiting.done()
    expectations.add(KEY)
    await waiting
    assert KEY in expectations


async def test_ends_for_those_who_wait_and_those_who_come_late() -> None:
    expectations = Expectations()
    waiting = asyncio.create_task(expectations.wait(KEY))
    await asyncio.sleep(0)
    expectations.end(KEY)
    with pytest.raises(UnknownRequest):
        await waiting
    with pytest.raises(UnknownRequest):
        await expectations.wait(KEY)
    assert KEY not in expectations


async def test_an_abandoned_wait_leaves_nothing() -> None:
    expectations = Expectations()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(expectations.wait(KEY), 0.01)
    assert len(expectations) == 0
    assert KEY not in expectations
    expectations.add(KEY)
    await expectations.wait(KEY)
