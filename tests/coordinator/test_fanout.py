"""Each index exactly once and in order, whatever order runs come in."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.errors import UnavailableError
from coordinator.events import MOST_EVENT_TOKENS, FinishedEvent, TokensEvent, Usage
from coordinator.fanout import EventStream, RequestOutput, TokenOrder
from coordinator.stage_messages import TokenRun
from core.sequence import FinishReason, TokenLogprobs


def run(first_index: int, *token_ids: int, finish: FinishReason | None = None) -> TokenRun:
    return TokenRun("r", 0, first_index, token_ids, finish=finish)


def indices(each: TokenRun) -> range:
    return range(each.first_index, each.first_index + len(each.token_ids))


def span(event: TokensEvent) -> range:
    return range(event.first_index, event.first_index + len(event.token_ids))


def letters(token_ids: list[int]) -> str:
    return "".join(chr(token_id) for token_id in token_ids)


def output(*stops: str, hidden: frozenset[int] = frozenset()) -> RequestOutput:
    return RequestOutput(letters, stops, hidden)


def finished() -> FinishedEvent:
    return FinishedEvent(FinishReason.LENGTH, "", Usage(1, 1, 0, 0), ())


@given(st.permutations(range(12)), st.data())
def test_any_order_gives_each_index_once(order: list[int], data: st.DataObject) -> None:
    tokens, seen = TokenOrder(), []
    for index in order:
        length = data.draw(st.integers(1, 4))
        known = [100 + i for i in range(index, min(index + length, 12))]
        seen += tokens.push(run(index, *known))
    assert [index for each in seen for index in indices(each)] == list(range(12))
    assert [token_id for each in seen for token_id in each.token_ids] == [100 + i for i in range(12)]
    assert not tokens.num_early


def test_a_new_attempt_forgets_what_came_early() -> None:
    tokens = TokenOrder()
    tokens.push(run(0, 10))
    tokens.push(run(2, 12))
    tokens.restart()
    assert [each.token_ids for each in tokens.push(run(1, 21, 22))] == [(21, 22)]


def test_what_came_early_keeps_its_finish_at_its_last_token() -> None:
    tokens = TokenOrder()
    tokens.push(run(1, 11, 12, finish=FinishReason.LENGTH))
    ready = tokens.push(run(0, 10))
    assert [each.finish for each in ready] == [None, None, FinishReason.LENGTH]


async def test_tokens_that_a_slow_reader_did_not_take_share_an_event() -> None:
    stream = EventStream()
    for token_id in range(MOST_EVENT_TOKENS):
        stream.push([(token_id, "x", None)])
    stream.close(finished())
    assert await stream.next() == TokensEvent(0, tuple(range(MOST_EVENT_TOKENS)), "x" * MOST_EVENT_TOKENS)
    assert await stream.next() == finished()
    assert await stream.next() is None


@given(st.lists(st.integers(0, 3 * MOST_EVENT_TOKENS)))
async def test_no_event_has_more_tokens_than_it_may(pushed: list[int]) -> None:
    """Whatever comes at once, each index comes once, in order, with its text and log probabilities."""
    stream, events = EventStream(), []
    indices = iter(range(sum(pushed)))
    for count in pushed:
        stream.push([(1000 + i, f"{i},", TokenLogprobs(-i)) for i in islice(indices, count)])
    stream.close(finished())
    while isinstance(event := await stream.next(), TokensEvent):
        events.append(event)
        assert 0 < len(event.token_ids) <= MOST_EVENT_TOKENS
        assert event.token_ids == tuple(1000 + i for i in span(event))
        assert event.text == "".join(f"{i}," for i in span(event))
        assert event.logprobs == tuple(TokenLogprobs(-i) for i in span(event))
    assert [i for event in events for i in span(event)] == list(range(sum(pushed)))


async def test_an_error_comes_after_the_tokens() -> None:
    stream = EventStream()
    stream.push([(1, "a", None)])
    stream.close(UnavailableError("gone"))
    assert (await stream.next()).text == "a"
    with pytest.raises(UnavailableError):
        await stream.next()


async def test_a_stop_string_ends_the_answer_inside_a_run() -> None:
    answer = output("cd")
    assert answer.push(run(0, *map(ord, "abcdef"))) == 4
    assert answer.finish is FinishReason.STOP
    assert answer.stop_string == "cd"
    event = await answer.stream.next()
    assert event.text == "ab"
    assert event.token_ids == tuple(map(ord, "abcd"))


async def test_held_text_comes_with_the_end() -> None:
    answer = output("cdx")
    answer.push(run(0, *map(ord, "abcd"), finish=FinishReason.LENGTH))
    assert answer.finish is FinishReason.LENGTH
    assert (await answer.stream.next()).text == "abcd"


async def test_the_ending_token_is_counted_and_not_shown() -> None:
    answer = output(hidden=frozenset({ord("!")}))
    answer.push(run(0, *map(ord, "a!"), finish=FinishReason.STOP))
    event = await answer.stream.next()
    assert event.text == "a"
    assert event.token_ids == tuple(map(ord, "a!"))


async def test_logprobs_stay_with_their_tokens() -> None:
    answer = output()
    logprobs = tuple(TokenLogprobs(-float(index)) for index in range(3))
    answer.push(TokenRun("r", 0, 1, (ord("b"), ord("c")), logprobs[1:]))
    answer.push(TokenRun("r", 0, 0, (ord("a"),), logprobs[:1]))
    event = await answer.stream.next()
    assert event.text == "abc"
    assert event.logprobs == logprobs


def test_nothing_follows_the_end() -> None:
    answer = output()
    answer.push(run(0, 97, finish=FinishReason.LENGTH))
    assert answer.push(run(1, 98)) == 0
    assert answer.token_ids == [97]
