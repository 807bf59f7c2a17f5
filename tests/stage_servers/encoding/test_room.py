"""Preprocessing is ahead of the device by bounded seconds and bytes."""

from __future__ import annotations

import asyncio

from stage_servers.encoding.gate import Gate
from stage_servers.encoding.item import MediaItem
from stage_servers.encoding.room import Room
from tests.stage_servers.encoding.items import is_large, media_item

TOKEN_S = 0.01


def make_room(most_s: float = 1.0, most_tokens: int = 10_000) -> Room:
    most_bytes = most_tokens * media_item(1).pixel_bytes
    return Room(
        lambda item: item.num_tokens * TOKEN_S, is_large=is_large, most_s=most_s, most_bytes=most_bytes
    )


def num_taken(room: Room, *sizes: int) -> int:
    return sum(room.take(media_item(size)) for size in sizes)


def test_seconds_are_bounded() -> None:
    assert num_taken(make_room(most_s=1.0), *[30] * 5) == 3


def test_bytes_are_bounded() -> None:
    assert num_taken(make_room(most_tokens=100), *[30] * 5) == 3


def test_two_always_fit() -> None:
    assert num_taken(make_room(), 5000, 5000, 5000) == 2


def test_small_ones_have_a_room_of_their_own() -> None:
    room = make_room()
    assert num_taken(room, 5000, 5000, 5000) == 2
    assert num_taken(room, *[30] * 5) == 3


def test_what_is_given_back_is_what_was_taken() -> None:
    """Whatever is predicted by then."""
    token_s = [TOKEN_S]
    room = Room(lambda item: item.num_tokens * token_s[0], is_large=lambda _: token_s[0] > 1)
    items = [media_item(30) for _ in range(3)]
    assert all(room.take(item) for item in items)
    token_s[0] = 100.0
    for item in items:
        room.give_back(item)
    assert room.num_items == 0
    token_s[0] = TOKEN_S
    assert num_taken(room, *[30] * 5) == 3


async def test_tasks_wait_for_room_in_order_and_a_cancelled_one_leaves_the_line() -> None:
    room = make_room(most_s=0.3)
    gate = Gate(room, rank=lambda item: item.num_tokens, is_large=is_large)
    entered: list[int] = []

    async def enter(item: MediaItem) -> None:
        await gate.enter(item)
        entered.append(item.num_tokens)

    first, second = media_item(20), media_item(10)
    await enter(first)
    await enter(second)
    waiting = {size: asyncio.create_task(enter(media_item(size))) for size in (19, 12, 11)}
    await asyncio.sleep(0)
    waiting[11].cancel()
    await asyncio.gather(waiting[11], return_exceptions=True)
    assert gate.num_waiting == 2
    gate.leave(first)
    await waiting[12]
    assert entered == [20, 10, 12]
    gate.leave(second)
    await waiting[19]
    assert (gate.num_waiting, room.num_items) == (0, 2)


async def test_one_that_is_cancelled_as_it_is_let_in_gives_back_what_it_took() -> None:
    room = make_room(most_s=0.3)
    gate = Gate(room, rank=lambda item: item.num_tokens, is_large=is_large)
    held = [media_item(15), media_item(15)]
    for item in held:
        await gate.enter(item)
    waiting = asyncio.create_task(gate.enter(media_item(15)))
    await asyncio.sleep(0)
    gate.leave(held[0])
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert room.num_items == 1
