"""A paced link lets payloads pass one after the other, each at its kind's pace."""

from __future__ import annotations

import asyncio

import pytest

from core.clock import ManualClock
from kv_transfer.layout import PayloadKind
from kv_transfer.pace import LinkCosts, PacedLink

COSTS = {PayloadKind.KV: LinkCosts(0.5, 0.01), PayloadKind.EMBEDDING: LinkCosts(0.0, 0.1)}


def test_payloads_pass_one_after_the_other() -> None:
    clock = ManualClock(10.0)
    link = PacedLink(COSTS, clock)
    assert link.occupy(PayloadKind.KV, 100) == pytest.approx(11.5)
    assert link.occupy(PayloadKind.EMBEDDING, 10) == pytest.approx(12.0)
    clock.advance(10.0)
    assert link.occupy(PayloadKind.KV, 100) == pytest.approx(21.5)


async def test_waiting_ends_when_it_has_passed() -> None:
    clock = ManualClock(10.0)
    link = PacedLink(COSTS, clock)
    await link.wait_until(9.0)
    waiting = asyncio.create_task(link.wait_until(link.occupy(PayloadKind.EMBEDDING, 0.1)))
    await waiting
    assert waiting.done()
