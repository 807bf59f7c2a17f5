"""Several internal calls as one: their events in order of arrival, the first error ends them all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from coordinator.calls import GenerateCall
from coordinator.errors import InternalFailureError, ServiceError
from coordinator.events import AcceptedEvent, Event

log = logging.getLogger(__name__)

Generate = Callable[[GenerateCall, Callable[[Event], Awaitable[None]]], Awaitable[None]]

# Events that wait for a reader; more of them stay with the door, where they merge.
_MAX_WAITING = 4


class Choices:
    """Used with `async with`; leaving cancels what still runs.

    `next` gives each choice's events with its number. All choices are accepted before the
    first token of any comes, so that a refusal is known before an answer begins.
    """

    def __init__(self, generate: Generate, calls: Sequence[GenerateCall]) -> None:
        self._generate = generate
        self._calls = calls
        self._queue: asyncio.Queue[tuple[int, Event | ServiceError | None]] = asyncio.Queue(_MAX_WAITING)
        self._num_running = len(calls)
        self._num_accepted = 0
        self._all_accepted = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Choices:
        self._tasks = [asyncio.create_task(self._run(i, call)) for i, call in enumerate(self._calls)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def next(self) -> tuple[int, Event] | None:
        """None after the last event of all. Raises the first ServiceError."""
        while self._num_running:
            index, event = await self._queue.get()
            if isinstance(event, ServiceError):
                raise event
            if event is not None:
                return index, event
            self._num_running -= 1
        return None

    async def _run(self, index: int, call: GenerateCall) -> None:
        async def emit(event: Event) -> None:
            if not isinstance(event, AcceptedEvent):
                await self._all_accepted.wait()
            await self._queue.put((index, event))
            if isinstance(event, AcceptedEvent):
                self._note_accepted()

        await self._queue.put((index, await self._end_of(call, emit)))

    async def _end_of(
        self, call: GenerateCall, emit: Callable[[Event], Awaitable[None]]
    ) -> ServiceError | None:
        try:
            await self._generate(call, emit)
        except ServiceError as error:
            return error
        except Exception as error:
            log.exception("request %s: failed", call.request_id)
            return InternalFailureError(f"{type(error).__name__}: {error}")
        return None

    def _note_accepted(self) -> None:
        self._num_accepted += 1
        if self._num_accepted == len(self._calls):
            self._all_accepted.set()
