"""A link between the ends of a transfer that tests can cut."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.kv_transfer.faults.link import Link


@pytest.fixture
async def link() -> AsyncIterator[Link]:
    made = Link()
    yield made
    await made.close()
