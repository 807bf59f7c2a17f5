"""Streams that are ready when many write gather tokens until it is their turn."""

import asyncio

from coordinator.fanout import EventStream
from coordinator.listening.turns import Turns


def asked(turns: Turns, count: int) -> list[int]:
    """Numbers of the streams that were woken, as they are."""
    woken: list[int] = []
    for stream in range(count):
        turns.ask(stream, lambda stream=stream: woken.append(stream))  # type: ignore[misc]
    return woken


async def test_few_write_at_once_and_the_others_in_order_as_they_are_done() -> None:
    turns = Turns(most_at_once=2, longest_s=60.0)
    woken = asked(turns, 5)
    assert woken == [0, 1]
    turns.done(1)
    assert woken == [0, 1, 2]
    turns.done(1)  # it was not its turn
    assert woken == [0, 1, 2]


async def test_who_does_not_get_done_holds_nobody_up() -> None:
    turns = Turns(most_at_once=1, longest_s=0.001)
    woken = asked(turns, 3)
    async with asyncio.timeout(30):
        while len(woken) < 3:
            await asyncio.sleep(0.001)
    assert woken == [0, 1, 2]


async def test_tokens_that_come_meanwhile_share_a_message() -> None:
    turns = Turns(most_at_once=1, longest_s=60.0)
    first, second = EventStream(turns), EventStream(turns)
    first.push([(7, "x", None)])
    assert (await first.next()).token_ids == (7,)  # type: ignore[union-attr]
    waiting = asyncio.create_task(second.next())
    for _ in range(3):
        second.push([(7, "x", None)])
        await asyncio.sleep(0)
    assert not waiting.done()
    after = asyncio.create_task(first.next())  # so its message is written
    assert (await waiting).token_ids == (7, 7, 7)  # type: ignore[union-attr]
    after.cancel()
