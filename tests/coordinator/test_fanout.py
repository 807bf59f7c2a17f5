"""Each index exactly once and in order, whatever order runs come in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.errors import UnavailableError
from coordinator.events import FinishedEvent, TokensEvent, Usage
from coordinator.fanout import EventStream, OutputToken, RequestOutput, TokenOrder
from coordinator.stage_messages import TokenRun
from core.sequence import FinishReason, TokenLogprobs


def run(first_index: int, *token_ids: int, finish: FinishReason | None = None) -> TokenRun:
    return TokenRun("r", 0, first_index, token_ids, finish=finish)


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
    assert [token.index for token in seen] == list(range(12))
    assert [token.token_id for token in seen] == [100 + i for i in range(12)]
    assert not tokens.num_early


def test_a_new_attempt_forgets_what_came_early() -> None:
    tokens = TokenOrder()
    tokens.push(run(0, 10))
    tokens.push(run(2, 12))
    tokens.restart()
    assert [token.token_id for token in tokens.push(run(1, 21, 22))] == [21, 22]


async def test_a_slow_reader_gets_one_event_for_many_tokens() -> None:
    stream = EventStream()
    for index in range(50):
        stream.push([OutputToken(index, index)], "x")
    stream.close(finished())
    event = await stream.next()
    assert isinstance(event, TokensEvent)
    assert event.token_ids == tuple(range(50))
    assert event.text == "x" * 50
    assert await stream.next() == finished()
    assert await stream.next() is None


async def test_an_event_has_a_bounded_size() -> None:
    stream = EventStream()
    stream.push([OutputToken(index, 1) for index in range(1500)], "x" * 1500)
    first, second = await stream.next(), await stream.next()
    assert (first.first_index, len(first.token_ids)) == (0, 1024)
    assert (second.first_index, len(second.token_ids)) == (1024, 476)
    assert first.text + second.text == "x" * 1500


async def test_an_error_comes_after_the_tokens() -> None:
    stream = EventStream()
    stream.push([OutputToken(0, 1)], "a")
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
