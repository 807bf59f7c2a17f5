"""An answer as it arrives, for ordinary code."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol

import grpc

from elasticmm.v1 import inference_pb2 as pb
from elasticmm_client.errors import Cancelled, ElasticMMError, error_from_call, is_lost_upload
from elasticmm_client.events import Accepted, Event, event_from_proto
from elasticmm_client.result import Gatherer, GenerateResult
from elasticmm_client.resuming import Resumption


class StreamCall(Protocol):
    """The part of grpc's stream call that is used here."""

    def __next__(self) -> pb.GenerateEvent: ...
    def cancel(self) -> bool: ...


class Stream(Iterator[Event]):
    """Iterate it for events, or ask for `text()` or `result()`.

    Used as a context manager, it cancels the request on exit unless the answer
    is complete. One thread at a time, `cancel()` from any.
    """

    def __init__(
        self,
        call: StreamCall,
        start_s: float,
        restart: Callable[[], StreamCall] | None,
        resumption: Resumption[StreamCall] | None = None,
        first_index: int = 0,
    ) -> None:
        """restart: called if the gateway lost a picture (once), or a call was lost before it arrived.

        resumption: of a resumable request. first_index: of the first token that is wanted.
        """
        self._call = call
        self._restart = restart
        self._has_restarted = False
        self._resumption = resumption
        self._gathered = Gatherer(start_s, first_index)
        self._cancelled = threading.Event()

    def __next__(self) -> Event:
        """The next event. Raises ElasticMMError; after `cancel()` it just ends."""
        while True:
            event = event_from_proto(self._receive())
            if event is None or (isinstance(event, Accepted) and self._gathered.is_accepted):
                continue
            self._gathered.take(event, time.monotonic())
            return event

    def _receive(self) -> pb.GenerateEvent:
        while True:
            if self._cancelled.is_set():
                self._call.cancel()  # it may have been made meanwhile
                raise StopIteration
            try:
                message = next(self._call)
            except StopIteration:
                self._gathered.check_finished()
                raise
            except grpc.RpcError as error:
                if self._cancelled.is_set():
                    raise StopIteration from None
                self._call = self._next_call(error_from_call(error))
            else:
                if self._resumption is not None:
                    self._resumption.note_event()
                return message

    def _next_call(self, error: ElasticMMError) -> StreamCall:
        """Raises `error` where it ends the stream."""
        if self._restart is not None and is_lost_upload(error) and not self._has_restarted:
            self._has_restarted = True
            return self._restart()
        if self._resumption is None:
            raise error
        is_begun = self._gathered.is_accepted
        if self._restart is not None and not is_begun and self._resumption.is_unknown(error):
            return self._restart()
        self._cancelled.wait(self._resumption.pause_s(error, time.monotonic(), is_begun=is_begun))
        return self._resumption.resume(self._gathered.next_index)

    def cancel(self) -> None:
        """Stops the work on the server. Harmless after the end."""
        self._cancelled.set()
        self._call.cancel()
        if self._resumption is not None and not self._gathered.is_finished:
            self._resumption.stop()

    def text(self) -> str:
        """Reads to the end; the whole text, what was iterated before included."""
        for _ in self:
            pass
        return self._gathered.text

    def result(self) -> GenerateResult:
        """Reads to the end; the whole answer. Raises Cancelled after `cancel()`."""
        self.text()
        if self._cancelled.is_set() and not self._gathered.is_finished:
            raise Cancelled("the request was cancelled by this client", code="CANCELLED")
        return self._gathered.result()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._gathered.is_finished:
            self.cancel()
