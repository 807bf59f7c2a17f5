"""An answer as it arrives, for ordinary code."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol

import grpc

from elasticmm.v1 import inference_pb2 as pb
from elasticmm_client.errors import Cancelled, ElasticMMError, error_from_call, is_lost_upload
from elasticmm_client.events import Event, event_from_proto
from elasticmm_client.result import Gatherer, GenerateResult


class StreamCall(Protocol):
    """The part of grpc's stream call that is used here."""

    def __next__(self) -> pb.GenerateEvent: ...
    def cancel(self) -> bool: ...


class Stream(Iterator[Event]):
    """Iterate it for events, or ask for `text()` or `result()`.

    Used as a context manager, it cancels the request on exit unless the answer
    is complete. One thread at a time, `cancel()` from any.
    """

    def __init__(self, call: StreamCall, start_s: float, restart: Callable[[], StreamCall]) -> None:
        """restart: called once if the gateway lost a picture, to upload and ask again."""
        self._call = call
        self._restart: Callable[[], StreamCall] | None = restart
        self._gathered = Gatherer(start_s)
        self._is_cancelled = False

    def __next__(self) -> Event:
        """The next event. Raises ElasticMMError; after `cancel()` it just ends."""
        while True:
            event = event_from_proto(self._receive())
            if event is not None:
                self._gathered.take(event, time.monotonic())
                return event

    def _receive(self) -> pb.GenerateEvent:
        if self._is_cancelled:
            raise StopIteration
        try:
            return next(self._call)
        except StopIteration:
            self._gathered.check_finished()
            raise
        except grpc.RpcError as error:
            if self._is_cancelled:
                raise StopIteration from None
            return self._receive_again(error_from_call(error))

    def _receive_again(self, error: ElasticMMError) -> pb.GenerateEvent:
        restart, self._restart = self._restart, None
        if restart is None or not is_lost_upload(error):
            raise error
        self._call = restart()
        return self._receive()

    def cancel(self) -> None:
        """Stops the work on the server. Harmless after the end."""
        self._is_cancelled = True
        self._call.cancel()

    def text(self) -> str:
        """Reads to the end; the whole text, what was iterated before included."""
        for _ in self:
            pass
        return self._gathered.text

    def result(self) -> GenerateResult:
        """Reads to the end; the whole answer. Raises Cancelled after `cancel()`."""
        self.text()
        if self._is_cancelled and not self._gathered.is_finished:
            raise Cancelled("the request was cancelled by this client", code="CANCELLED")
        return self._gathered.result()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._gathered.is_finished:
            self.cancel()
