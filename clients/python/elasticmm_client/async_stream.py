"""An answer as it arrives, for asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Protocol

import grpc

from elasticmm.v1 import inference_pb2 as pb
from elasticmm_client.errors import Cancelled, ElasticMMError, error_from_call, is_lost_upload
from elasticmm_client.events import Accepted, Event, event_from_proto
from elasticmm_client.result import Gatherer, GenerateResult
from elasticmm_client.resuming import Resumption


class AsyncStreamCall(Protocol):
    """The part of grpc.aio's stream call that is used here."""

    def __aiter__(self) -> AsyncIterator[pb.GenerateEvent]: ...
    def cancel(self) -> bool: ...


class AsyncStream(AsyncIterator[Event]):
    """Iterate it for events, or await `text()` or `result()`.

    The request is sent at the first of these, or on entering `async with`, which
    cancels on exit unless the answer is complete.
    """

    def __init__(
        self,
        start: Callable[[bool], Awaitable[AsyncStreamCall]],
        resumption: Resumption[AsyncStreamCall] | None = None,
        first_index: int = 0,
        *,
        can_restart: bool = True,
    ) -> None:
        """start: makes the call; asked with True, once, if the gateway lost a picture.

        resumption: of a resumable request. first_index: of the first token that is wanted. can_restart:
        `start` asks for a new answer.
        """
        self._start = start
        self._resumption = resumption
        self._first_index = first_index
        self._can_restart = can_restart
        self._stopping: Awaitable[object] | None = None
        self._has_restarted = False
        self._call: AsyncStreamCall | None = None
        self._events: AsyncIterator[pb.GenerateEvent] | None = None
        self._gathered = Gatherer(time.monotonic(), first_index)
        self._is_cancelled = False

    async def __anext__(self) -> Event:
        """The next event. Raises ElasticMMError; after `cancel()` it just ends."""
        while True:
            event = event_from_proto(await self._receive())
            if event is None or (isinstance(event, Accepted) and self._gathered.is_accepted):
                continue
            self._gathered.take(event, time.monotonic())
            return event

    async def _receive(self) -> pb.GenerateEvent:
        while True:
            if self._is_cancelled:
                await self._settle()
                raise StopAsyncIteration
            events = await self._open()
            try:
                message = await anext(events)
            except StopAsyncIteration:
                self._gathered.check_finished()
                raise
            except asyncio.CancelledError:
                # grpc.aio raises it in whoever reads a cancelled call; only a cancelled task may pass it on
                if self._is_cancelled and not _is_task_cancelled():
                    raise StopAsyncIteration from None
                raise
            except grpc.RpcError as error:
                self._events = await self._next_call(error_from_call(error))
            else:
                if self._resumption is not None:
                    self._resumption.note_event()
                return message

    async def _next_call(self, error: ElasticMMError) -> AsyncIterator[pb.GenerateEvent]:
        """Raises `error` where it ends the stream."""
        if self._can_restart and is_lost_upload(error) and not self._has_restarted:
            self._has_restarted = True
            return await self._make_call(True)
        if self._resumption is None:
            raise error
        is_begun = self._gathered.is_accepted
        if self._can_restart and not is_begun and self._resumption.is_unknown(error):
            return await self._make_call(False)
        await asyncio.sleep(self._resumption.pause_s(error, time.monotonic(), is_begun=is_begun))
        self._call = self._resumption.resume(self._gathered.next_index)
        return aiter(self._call)

    async def _open(self) -> AsyncIterator[pb.GenerateEvent]:
        if self._events is None:
            self._gathered = Gatherer(time.monotonic(), self._first_index)
            self._events = await self._make_call(False)
        return self._events

    async def _make_call(self, has_lost_uploads: bool) -> AsyncIterator[pb.GenerateEvent]:
        self._call = await self._start(has_lost_uploads)
        return aiter(self._call)

    def cancel(self) -> None:
        """Stops the work on the server. Harmless after the end."""
        self._is_cancelled = True
        if self._call is None:
            return
        self._call.cancel()
        if self._resumption is not None and not self._gathered.is_finished and self._stopping is None:
            self._stopping = self._resumption.stop()

    async def text(self) -> str:
        """Reads to the end; the whole text, what was iterated before included."""
        async for _ in self:
            pass
        return self._gathered.text

    async def result(self) -> GenerateResult:
        """Reads to the end; the whole answer. Raises Cancelled after `cancel()`."""
        await self.text()
        if self._is_cancelled and not self._gathered.is_finished:
            raise Cancelled("the request was cancelled by this client", code="CANCELLED")
        return self._gathered.result()

    async def __aenter__(self) -> AsyncStream:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._gathered.is_finished:
            self.cancel()
        await self._settle()

    async def _settle(self) -> None:
        """After `cancel()`: a call that was made meanwhile ends too, and the server knows."""
        if self._is_cancelled and self._call is not None:
            self._call.cancel()
        if self._stopping is not None:
            with suppress(grpc.RpcError):  # it ended meanwhile, or cannot be reached and expires
                await self._stopping


def _is_task_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
