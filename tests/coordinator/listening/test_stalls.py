"""A client that does not read is told from one that does, and from a caller that gives up."""

import asyncio

import pytest

from coordinator.errors import StalledReaderError
from coordinator.listening.stalls import StallWatch


async def test_a_write_that_takes_too_long_is_a_stall() -> None:
    with pytest.raises(StalledReaderError, match="0.01 s"):
        await StallWatch(0.01).run(asyncio.Event().wait())  # type: ignore[arg-type]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_writes_that_end_may_take_longer_together() -> None:
    watch = StallWatch(30.0)
    for _ in range(3):
        await watch.run(asyncio.sleep(0))
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_timer_that_was_armed_for_an_earlier_write_looks_again() -> None:
    watch = StallWatch(0.05)
    await watch.run(asyncio.sleep(0.02))
    with pytest.raises(StalledReaderError):
        await watch.run(asyncio.Event().wait())  # type: ignore[arg-type]


async def test_who_cancels_the_writer_is_obeyed() -> None:
    writing = asyncio.create_task(StallWatch(30.0).run(asyncio.Event().wait()))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
