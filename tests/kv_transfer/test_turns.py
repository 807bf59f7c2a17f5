"""So many at once, the others in order of arrival; who leaves leaves no trace."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from kv_transfer.turns import Turns


async def test_first_come_first_served_per_key() -> None:
    turns, order = Turns(2), []

    async def go(number: int) -> None:
        await turns.take("a")
        order.append(number)

    tasks = [asyncio.create_task(go(number)) for number in range(5)]
    await asyncio.sleep(0)
    assert (order, turns.num_waiting("a")) == ([0, 1], 3)
    assert turns.try_take("b")
    assert not turns.try_take("a")
    for _ in range(3):
        turns.give_back("a")
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3, 4]
    for key in "aab":
        turns.give_back(key)
    turns.check_idle()


async def test_whoever_is_cancelled_leaves_no_trace() -> None:
    turns = Turns(1)
    await turns.take("a")
    first, second = (asyncio.create_task(turns.take("a")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert turns.num_waiting("a") == 1
    turns.give_back("a")
    await second
    turns.give_back("a")
    turns.check_idle()


@pytest.mark.parametrize("order", list(itertools.permutations(["cancel", "give back"])))
async def test_a_turn_that_comes_as_its_taker_leaves_goes_to_the_next(order: list[str]) -> None:
    turns = Turns(1)
    await turns.take("a")
    leaving, staying = (asyncio.create_task(turns.take("a")) for _ in range(2))
    await asyncio.sleep(0)
    for step in order:
        leaving.cancel() if step == "cancel" else turns.give_back("a")
    await staying
    assert leaving.cancelled()
    turns.give_back("a")
    turns.check_idle()


async def test_a_taken_turn_is_not_idle() -> None:
    turns = Turns(1)
    await turns.take("a")
    with pytest.raises(AssertionError, match="turns taken"):
        turns.check_idle()
    with pytest.raises(ValueError, match="at least one"):
        Turns(0)
