"""From a media item's address to its embedding; a cancel frees everything, wherever the item is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from core.sequence import MediaSpan
from stage_servers.encoding.pipeline import EncodePipeline
from stage_servers.engine.families.adapter import PixelInput
from stage_servers.engine_thread import EngineThread
from stage_servers.media_pull import MediaSource
from tests.stage_servers.part import until

PHASES = ("fetch", "preprocess", "encode")


class Stops:
    """A model and a puller that stand still in one phase until they are let go on."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.at = ""
        self.reached: list[str] = []
        self.pulled = asyncio.Event()
        self.go_on = threading.Event()

    async def pull(self, source: MediaSource) -> bytes:
        self.reached.append("fetch")
        if self.at == "fetch":
            await self.pulled.wait()
        return bytes(source.size_bytes)

    def preprocess(self, _data: bytes, span: MediaSpan) -> PixelInput:
        self._stop("preprocess")
        return PixelInput(torch.empty(0), span.grid, span.num_tokens)

    def encode_in_parts(
        self, inputs: Sequence[PixelInput], num_parts: int
    ) -> Iterator[list[torch.Tensor] | None]:
        for number in range(num_parts):
            self._stop("encode")
            last = number + 1 == num_parts
            yield [torch.full((each.num_tokens, 1), 1.0) for each in inputs] if last else None

    def padded_tokens(self, sizes: Sequence[int]) -> int:
        return sum(sizes)

    def note_rest(self) -> None:
        """It computes nothing."""

    def _stop(self, phase: str) -> None:
        self.reached.append(phase)
        if self.at == phase:
            assert self.go_on.wait(60)


class Line:
    """A pipeline over `stops`."""

    def __init__(self) -> None:
        self.stops: Any = Stops()
        engine: Any = SimpleNamespace(has_work=False, close=lambda: None)
        self.thread = EngineThread(
            self.stops, engine, on_step=lambda _: None, on_crash=lambda _: None, max_encode_tokens=64
        )
        self.pipeline = EncodePipeline(self.stops, self.thread, self.stops, num_workers=1)
        self.thread.start()

    def start(self, num_tokens: int = 8, place: int = 0) -> asyncio.Task[Any]:
        source = MediaSource(bytes(32), 4, "", "", "", num_pixels=64)
        span = MediaSpan(place, 0, num_tokens, (1, 2, 2), bytes(32))
        return asyncio.create_task(self.pipeline.run(source, span))

    async def idle(self) -> None:
        await until(lambda: not self.pipeline.num_busy_workers)
        await self.thread.call(lambda: None)
        self.pipeline.check_idle()
        assert (self.thread.num_encodes_waiting, self.thread.num_encoding) == (0, 0)
        assert not self.thread._encodes.has_work


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    made = Line()
    yield made
    made.stops.go_on.set()
    made.pipeline.close()
    await asyncio.to_thread(made.thread.stop)


async def test_an_embedding_comes_with_what_it_took(line: Line) -> None:
    encoded = await line.start()
    assert encoded.embedding.tolist() == [[1.0]] * 8
    assert encoded.device_s > 0
    assert encoded.host_s > 0
    await line.idle()


@pytest.mark.parametrize("phase", PHASES)
async def test_a_cancel_frees_everything(line: Line, phase: str) -> None:
    line.stops.at = phase
    running, waiting = line.start(), line.start()
    await until(lambda: phase in line.stops.reached)
    assert line.pipeline.num_waiting + line.thread.num_encoding >= 1
    with pytest.raises(AssertionError, match="on their way"):
        line.pipeline.check_idle()
    for task in (running, waiting):
        task.cancel()
    await asyncio.gather(running, waiting, return_exceptions=True)
    assert running.cancelled()
    assert waiting.cancelled()
    line.stops.go_on.set()
    await line.idle()


async def test_an_error_frees_everything(line: Line) -> None:
    line.stops.preprocess = lambda _data, _span: 1 // 0
    with pytest.raises(ZeroDivisionError):
        await line.start()
    await line.idle()


async def test_pixels_do_not_pile_up_before_a_device_that_is_behind(line: Line) -> None:
    """Of twenty items of a second each two are fetched while the first one is encoded."""
    line.stops.at = "encode"
    tasks = [line.start(num_tokens=4000, place=place) for place in range(20)]
    await until(lambda: line.stops.reached.count("preprocess") == 2)
    assert line.stops.reached.count("fetch") == 2
    assert line.pipeline.num_waiting >= 18
    line.stops.go_on.set()
    await asyncio.gather(*tasks)
    assert line.stops.reached.count("fetch") == 20
    await line.idle()
