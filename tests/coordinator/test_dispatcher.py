"""Whatever happens in whatever order: each index once, no block promised twice, nothing held at the end."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from coordinator.errors import ServiceError
from coordinator.events import FinishedEvent, TokensEvent
from coordinator.request import Request
from core.stages import parse_roles
from tests.coordinator.play import Play


async def answer_of(request: Request) -> tuple[list[int], FinishedEvent | ServiceError | None]:
    """What the client reads, with each index checked."""
    token_ids: list[int] = []
    try:
        while (event := await request.output.stream.next()) is not None:
            if isinstance(event, FinishedEvent):
                return token_ids, event
            assert isinstance(event, TokensEvent)
            assert event.first_index == len(token_ids)
            token_ids += event.token_ids
    except ServiceError as error:
        return token_ids, error
    return token_ids, None


ROLES = ("e", "p", "d", "ep", "pd", "epd")
WEIGHTS = {"report": 60, "submit": 12, "migrate": 8, "join": 4, "lose": 3, "fail": 3, "cancel": 2}


def make_move(rng: random.Random) -> tuple[Any, ...]:
    """What happens next: mostly a report, now and then trouble."""
    (kind,) = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
    match kind:
        case "submit":
            return kind, rng.randint(1, 20), rng.randint(1, 12), rng.randint(0, 2)
        case "join":
            return kind, parse_roles(rng.choice(ROLES))
        case "migrate":
            return kind, rng.randrange(6), rng.randrange(50), rng.random() < 0.5
        case "fail":
            return kind, rng.randrange(6), rng.choice([10, 13, 14])
    return kind, rng.randrange(6)


async def run_play(script: list[tuple[Any, ...]], hints: random.Random | None = None) -> Play:
    """Plays it to the end of all requests."""
    play = Play(hints=hints)
    for name in ("ep", "d", "epd"):
        play.join(parse_roles(name))
    cancelled: set[int] = set()
    for kind, *values in script:
        players = list(play.players.values())
        player = players[values[0] % len(players)] if players and isinstance(values[0], int) else None
        match kind:
            case "join":
                play.join(*values)
            case "submit":
                play.submit(*values)
            case "report" if player:
                play.report(player)
            case "lose" if player:
                play.lose(player)
            case "fail" if player:
                play.fail_next(player, values[1])
            case "migrate" if play.requests:
                target = player.instance.instance_id if player and values[2] else None
                play.migrate(values[1], target)
            case "cancel" if play.requests:
                number = values[0] % len(play.requests)
                cancelled.add(number)
                play.dispatcher.cancel(play.requests[number])
        play.check()
    await play.settle()
    play.check()
    assert sorted(end.request_id for end in play.ends) == sorted(each.request_id for each in play.requests)
    assert all(0 <= (end.queued_s or 0) <= end.took_s for end in play.ends)
    for number, request in enumerate(play.requests):
        assert request.is_final
        if number not in cancelled:
            token_ids, last = await answer_of(request)
            assert token_ids == [1000 + index for index in range(len(token_ids))]
            assert isinstance(last, ServiceError) or len(token_ids) == request.sampling.max_tokens
    return play


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 250))
@example(5834188, 108)  # a source dies with the word of a token that its target went on from
def test_any_course_of_events(seed: int, length: int) -> None:
    rng = random.Random(seed)
    asyncio.run(run_play([make_move(rng) for _ in range(length)], hints=rng if seed % 2 else None))


def test_moves_happen_in_such_courses() -> None:
    rng = random.Random(5)
    courses = [[make_move(rng) for _ in range(1500)] for _ in range(4)]
    assert sum(asyncio.run(run_play(course)).num_moved for course in courses) > 3


def test_prefixes_are_missed_in_such_courses() -> None:
    rng = random.Random(6)
    courses = [[make_move(rng) for _ in range(800)] for _ in range(4)]
    plays = [asyncio.run(run_play(course, hints=rng)) for course in courses]
    assert sum(play.num_needed for play in plays) > 10
    assert sum(play.num_recalled for play in plays) > 3


async def test_a_router_sends_on_arrival_whatever_the_blocks() -> None:
    play = Play("replicas")
    for _ in range(2):
        play.join(parse_roles("epd"))
    for _ in range(8):
        play.submit(prompt_tokens=20, max_tokens=4, num_media=1)
    assert play.dispatcher.num_waiting == 0
    books = play.dispatcher.books
    assert all(each.load.sequences == 4 and each.free_kv_blocks < 0 for each in books.instances.values())
    play.dispatcher.check_integrity()
    await play.settle()
    assert play.dispatcher.num_finished == 8
    play.dispatcher.check_integrity()
