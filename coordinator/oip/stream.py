"""Many requests on one stream: answered side by side, written one at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from coordinator.errors import InternalFailureError, ServiceError, StalledReaderError
from coordinator.listening.stalls import StallWatch
from coordinator.oip.answer import FINAL
from coordinator.wire.status import code_of
from elasticmm.oip import open_inference_pb2 as pb

log = logging.getLogger(__name__)

# More wait unread, which the client's own flow control feels: refusals that nobody reads take no room here.
_MAX_OPEN = 256

Respond = Callable[[pb.ModelInferResponse], Awaitable[None]]
AnswerOne = Callable[[pb.ModelInferRequest, Respond], Awaitable[None]]
Write = Callable[[pb.ModelStreamInferResponse], Awaitable[None]]


class StreamWriter:
    """Turns of the requests of one stream at its client."""

    def __init__(self, write: Write, stalled_reader_s: float) -> None:
        self._write = write
        self._watch = StallWatch(stalled_reader_s)
        self._turn = asyncio.Lock()

    async def respond(self, response: pb.ModelInferResponse) -> None:
        await self._send(pb.ModelStreamInferResponse(infer_response=response))

    async def fail(self, request_id: str, error: ServiceError) -> None:
        """The request's last response."""
        message = pb.ModelStreamInferResponse(error_message=f"{code_of(error).name}: {error}")
        message.infer_response.id = request_id
        message.infer_response.parameters[FINAL].bool_param = True
        await self._send(message)

    async def _send(self, message: pb.ModelStreamInferResponse) -> None:
        """Raises StalledReaderError where the client does not take it."""
        async with self._turn:
            await self._watch.run(self._write(message))


async def answer_all(
    requests: AsyncIterator[pb.ModelInferRequest], answer: AnswerOne, writer: StreamWriter
) -> None:
    """Returns once the client has sent its last request and all are answered.

    Raises StalledReaderError, after every request was given up.
    """
    room = asyncio.Semaphore(_MAX_OPEN)

    async def answer_one(request: pb.ModelInferRequest) -> None:
        try:
            await _answer_or_fail(request, answer, writer)
        finally:
            room.release()

    try:
        async with asyncio.TaskGroup() as group:
            async for request in requests:
                await room.acquire()
                group.create_task(answer_one(request))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def _answer_or_fail(request: pb.ModelInferRequest, answer: AnswerOne, writer: StreamWriter) -> None:
    """What ends one request does not end the stream, but for a client that does not read."""
    try:
        await answer(request, writer.respond)
    except StalledReaderError:
        raise
    except ServiceError as error:
        await writer.fail(request.id, error)
    except Exception as error:
        log.exception("a request of a stream failed")
        await writer.fail(request.id, InternalFailureError(f"{type(error).__name__}: {error}"))
