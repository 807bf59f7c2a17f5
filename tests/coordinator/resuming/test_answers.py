"""How long answers are kept, whose they are, and that nothing stays behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from coordinator.config import ResumeLimits
from coordinator.errors import (
    AlreadyRunningError,
    CancelledError,
    InternalFailureError,
    NotFoundError,
    UnavailableError,
)
from coordinator.events import Emit, Event
from coordinator.resuming.answers import Answers
from tests.coordinator.conftest import until
from tests.coordinator.resuming.test_answer import ACCEPTED, FINISHED, token

LONG_S = 1000.0


class Work:
    """Makes two tokens, and ends once it is let."""

    def __init__(self, *, error: Exception | None = None, events: tuple[Event, ...] | None = None) -> None:
        self.may_end = asyncio.Event()
        self.is_over = False
        self.error = error
        self.events = (ACCEPTED, token(0), token(1)) if events is None else events

    async def __call__(self, emit: Emit) -> None:
        try:
            for event in self.events:
                await emit(event)
            await self.may_end.wait()
            if self.error is not None:
                raise self.error
            await emit(FINISHED)
        finally:
            self.is_over = True


@pytest.fixture
async def answers() -> AsyncIterator[Answers]:
    answers = Answers(ResumeLimits(answers=2, total_tokens=5))
    yield answers
    answers.check_integrity()
    await answers.close()
    assert not len(answers)
    assert len(asyncio.all_tasks()) == 1


async def begun(answers: Answers, work: Work, name: str = "r", keep_s: float = LONG_S) -> None:
    """Its client has read two tokens and is gone."""
    got: list[Event] = []

    async def emit(event: Event) -> None:
        got.append(event)

    reading = asyncio.create_task(answers.begin(name, "t", keep_s, work, emit))
    await until(lambda: len(got) >= 2)
    answers.check_integrity()
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    answers.check_integrity()


async def resumed(answers: Answers, name: str = "r", next_index: int = 2) -> list[Event]:
    got: list[Event] = []

    async def emit(event: Event) -> None:
        got.append(event)

    await answers.resume(name, "t", next_index, emit)
    answers.check_integrity()
    return got


async def test_the_work_goes_on_and_the_answer_stays(answers: Answers) -> None:
    work = Work()
    await begun(answers, work)
    assert not work.is_over
    work.may_end.set()
    await until(lambda: work.is_over)
    for _ in range(2):
        assert await resumed(answers) == [ACCEPTED, FINISHED]


async def test_unread_for_too_long_while_running(answers: Answers) -> None:
    work = Work()
    await begun(answers, work, keep_s=0.01)
    await until(lambda: work.is_over)
    with pytest.raises(NotFoundError):
        await resumed(answers)


async def test_unread_for_too_long_after_the_end(answers: Answers) -> None:
    work = Work()
    work.may_end.set()
    await begun(answers, work, keep_s=0.01)
    await until(lambda: not len(answers))


async def test_another_tenants_is_not_there(answers: Answers) -> None:
    await begun(answers, Work())
    with pytest.raises(NotFoundError):
        await answers.resume("r", "other", 0, Work())
    with pytest.raises(NotFoundError):
        answers.cancel("r", "other")


async def test_cancel_stops_the_work_and_tells_the_reader(answers: Answers) -> None:
    work = Work()
    await begun(answers, work)
    reading = asyncio.create_task(resumed(answers))
    await asyncio.sleep(0)
    answers.cancel("r", "t")
    with pytest.raises(CancelledError):
        await reading
    await until(lambda: work.is_over)
    answers.make_free("r", "t")


async def test_a_failure_before_accepted_leaves_nothing(answers: Answers) -> None:
    work = Work(error=UnavailableError("no"), events=())
    work.may_end.set()
    with pytest.raises(UnavailableError, match="no"):
        await answers.begin("r", "t", LONG_S, work, Work())
    assert not len(answers)


async def test_a_failure_after_accepted_is_kept_until_tried_again(answers: Answers) -> None:
    work = Work(error=ValueError("odd"))
    await begun(answers, work)
    with pytest.raises(AlreadyRunningError):
        answers.make_free("r", "t")
    work.may_end.set()
    await until(lambda: work.is_over)
    with pytest.raises(InternalFailureError, match="ValueError: odd"):
        await resumed(answers)
    with pytest.raises(AlreadyRunningError):
        answers.make_free("r", "other")
    answers.make_free("r", "t")
    assert not len(answers)


async def test_the_oldest_goes_where_tokens_are_too_many(answers: Answers) -> None:
    for name, num_tokens in (("a", 2), ("b", 4)):
        work = Work(events=(ACCEPTED, *map(token, range(num_tokens))))
        await begun(answers, work, name)
        work.may_end.set()
        await until(lambda work=work: work.is_over)
    await until(lambda: len(answers) == 1)
    assert await resumed(answers, "b", 4) == [ACCEPTED, FINISHED]


async def test_the_oldest_of_too_many_goes(answers: Answers) -> None:
    for name in ("a", "b", "c"):
        work = Work()
        await begun(answers, work, name)
        work.may_end.set()
        await until(lambda work=work: work.is_over)
    await until(lambda: len(answers) == 2)
    assert await resumed(answers, "b") == [ACCEPTED, FINISHED]
    with pytest.raises(NotFoundError):
        await resumed(answers, "a")
