"""What one answer keeps, and what its readers get."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.errors import OutOfRangeError, TakenOverError, UnavailableError
from coordinator.events import MOST_EVENT_TOKENS, AcceptedEvent, Event, FinishedEvent, TokensEvent, Usage
from coordinator.fanout import RequestOutput
from coordinator.resuming.answer import Answer
from coordinator.stage_messages import TokenRun
from core.sequence import FinishReason, TokenLogprobs

ACCEPTED = AcceptedEvent("r", "m", 1, 7)
FINISHED = FinishedEvent(FinishReason.LENGTH, "", Usage(7, 1, 0, 0), ())


def token(index: int) -> TokensEvent:
    return TokensEvent(index, (100 + index,), f"<{index}>", (TokenLogprobs(-index, ()),))


async def grown(num_tokens: int, max_tokens: int = 100) -> Answer:
    answer = Answer(max_tokens)
    for event in (ACCEPTED, *map(token, range(num_tokens))):
        await answer.take(event)
    answer.check_integrity()
    return answer


async def read(answer: Answer, next_index: int) -> list[Event]:
    events: list[Event] = []

    async def emit(event: Event) -> None:
        events.append(event)

    reader = answer.attach(next_index)
    try:
        await answer.read(reader, emit)
    finally:
        answer.detach(reader)
        answer.check_integrity()
    return events


@pytest.mark.parametrize("next_index", range(6))
async def test_from_any_index_on(next_index: int) -> None:
    answer = await grown(5)
    await answer.take(FINISHED)
    accepted, *tokens, finished = await read(answer, next_index)
    assert (accepted, finished) == (ACCEPTED, FINISHED)
    indices = range(next_index, 5)
    assert [event.first_index for event in tokens] == list(indices[:1])
    for event in tokens:
        assert event.token_ids == tuple(100 + i for i in indices)
        assert event.text == "".join(f"<{i}>" for i in indices)
        assert [each.logprob for each in event.logprobs] == [-i for i in indices]


async def test_a_reader_follows_live() -> None:
    answer = await grown(2)
    reading = asyncio.create_task(read(answer, 2))
    for event in (token(2), token(3), FINISHED):
        await asyncio.sleep(0)
        await answer.take(event)
    assert await reading == [ACCEPTED, token(2), token(3), FINISHED]


async def test_one_is_read_by_one() -> None:
    answer = await grown(2)
    first = asyncio.create_task(read(answer, 0))
    await asyncio.sleep(0)
    second = asyncio.create_task(read(answer, 1))
    with pytest.raises(TakenOverError):
        await first
    await answer.take(FINISHED)
    assert await second == [ACCEPTED, token(1), FINISHED]


@pytest.mark.parametrize("next_index", [-1, 0, 1, 6])
async def test_out_of_range(next_index: int) -> None:
    answer = await grown(5, max_tokens=3)
    reader = answer.attach(3)
    with pytest.raises(OutOfRangeError, match="not between 2 and 5") as caught:
        answer.attach(next_index)
    assert caught.value.field == "next_index"
    answer.detach(reader)  # it was still the reader


async def test_what_a_reader_has_not_read_stays() -> None:
    answer = Answer(2)
    reader = answer.attach(0)
    for event in (ACCEPTED, *map(token, range(9))):
        await answer.take(event)
        answer.check_integrity()
    answer.attach(0)  # all is there
    answer.detach(reader)
    answer.attach(0)  # the first one left, but another has come
    reader = answer.attach(8)
    answer.detach(reader)
    with pytest.raises(OutOfRangeError):
        answer.attach(6)


async def test_big_answers_come_in_bounded_events() -> None:
    answer = await grown(20, max_tokens=30)
    await answer.take(FINISHED)
    _, *events, _ = await read(answer, 1)
    sizes = [(event.first_index, len(event.token_ids)) for event in events]
    assert sizes == [(1, MOST_EVENT_TOKENS), (9, MOST_EVENT_TOKENS), (17, 3)]
    assert events[1].text.startswith("<9>")


@pytest.mark.parametrize("next_index", range(10))
async def test_text_that_was_held_back_comes_with_what_completes_it(next_index: int) -> None:
    """Read up to anywhere and gone on with there, the text is that of the whole."""
    output = RequestOutput(lambda ids: "".join(map(chr, ids)), ("xyz",), frozenset())
    for start, letters in ((0, "axyb"), (4, "x"), (5, "yaxy")):
        finish = FinishReason.LENGTH if start == 5 else None
        output.push(TokenRun("r", 0, start, tuple(map(ord, letters)), finish=finish))
    output.stream.close(FINISHED)
    answer, events = Answer(100), [ACCEPTED]
    await answer.take(ACCEPTED)
    while (event := await output.stream.next(1)) is not None:
        events.append(event)
        await answer.take(event)
    seen = "".join(event.text for event in events[1 : 1 + next_index])
    rest = "".join(event.text for event in (await read(answer, next_index))[1:-1])
    assert seen + rest == "axybxyaxy"
    assert "x" not in events[2].text


async def test_a_failure_comes_after_the_tokens_each_time() -> None:
    answer = await grown(1)
    answer.fail(UnavailableError("gone"))
    answer.fail(UnavailableError("later"))
    for _ in range(2):
        with pytest.raises(UnavailableError, match="gone"):
            await read(answer, 0)
