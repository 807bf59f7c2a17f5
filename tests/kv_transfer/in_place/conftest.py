"""Producers in this process, and ends in others."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from kv_transfer.segment import reap_segments
from tests.kv_transfer.children import MODULE_IN_PLACE, Child, Start, start_child
from tests.kv_transfer.in_place.lending import Producer
from tests.kv_transfer.loopback import CLUSTER, MakeSender


@pytest.fixture
async def producer(sender_with: MakeSender) -> AsyncIterator[Producer]:
    made = Producer(sender_with())
    yield made
    made.close()


@pytest.fixture
async def begin() -> AsyncIterator[Start]:
    """Starts processes of tests.kv_transfer.in_place.child."""
    children: list[Child] = []

    async def run(role: str, where: str, **options: object) -> Child:
        children.append(await start_child(role, where, options, MODULE_IN_PLACE))
        return children[-1]

    yield run
    for child in children:
        await child.kill()
    reap_segments(CLUSTER)
