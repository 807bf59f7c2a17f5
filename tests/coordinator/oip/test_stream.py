"""Many requests on one stream, with a client that reads and with one that does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from coordinator.errors import InvalidFieldError, StalledReaderError
from coordinator.oip import stream
from coordinator.oip.stream import Respond, StreamWriter, answer_all
from elasticmm.oip import open_inference_pb2 as pb
from tests.coordinator.conftest import until


class Client:
    """Sends numbered requests, as fast as they are read, and keeps what it is told."""

    def __init__(self, num_requests: int) -> None:
        self.num_requests = num_requests
        self.num_sent = 0
        self.told: list[pb.ModelStreamInferResponse] = []
        self.reads = asyncio.Event()
        self.reads.set()

    async def requests(self) -> AsyncIterator[pb.ModelInferRequest]:
        while self.num_sent < self.num_requests:
            self.num_sent += 1
            yield pb.ModelInferRequest(id=str(self.num_sent))

    async def take(self, message: pb.ModelStreamInferResponse) -> None:
        await self.reads.wait()
        self.told.append(message)


async def echo(request: pb.ModelInferRequest, respond: Respond) -> None:
    await respond(pb.ModelInferResponse(id=request.id))


async def test_failures_end_their_request_only() -> None:
    async def answer(request: pb.ModelInferRequest, respond: Respond) -> None:
        if request.id == "2":
            raise InvalidFieldError("top_p", "is odd")
        if request.id == "3":
            raise KeyError("a defect")
        await echo(request, respond)

    client = Client(4)
    await answer_all(client.requests(), answer, StreamWriter(client.take, 60))
    errors = {each.infer_response.id: each.error_message for each in client.told}
    assert errors == {
        "1": "",
        "2": "INVALID_ARGUMENT: top_p: is odd",
        "3": "INTERNAL: KeyError: 'a defect'",
        "4": "",
    }
    assert client.told[1].infer_response.parameters["triton_final_response"].bool_param


async def test_open_requests_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_MAX_OPEN", 3)
    client = Client(20)
    client.reads.clear()
    answering = asyncio.create_task(answer_all(client.requests(), echo, StreamWriter(client.take, 60)))
    await until(lambda: client.num_sent == 4)  # the fourth was read, and waits for room
    for _ in range(20):
        await asyncio.sleep(0)
    assert client.num_sent == 4
    client.reads.set()
    await answering
    assert len(client.told) == 20


async def test_stalled_reader() -> None:
    ended: list[str] = []

    async def answer(request: pb.ModelInferRequest, respond: Respond) -> None:
        try:
            await echo(request, respond)
        finally:
            ended.append(request.id)

    client = Client(3)
    client.reads.clear()
    with pytest.raises(StalledReaderError, match=r"nothing was read for 0\.01 s"):
        await answer_all(client.requests(), answer, StreamWriter(client.take, 0.01))
    assert sorted(ended) == ["1", "2", "3"]
    assert client.told == []
