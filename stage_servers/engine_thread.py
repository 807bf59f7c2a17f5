"""The one thread that owns the device: it takes calls between steps and runs whatever is runnable."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from core.prompt_order import EncodeTurns

if TYPE_CHECKING:
    import torch

    from stage_servers.engine.engine import Engine
    from stage_servers.engine.families.adapter import PixelInput
    from stage_servers.engine.records import StepOutput
    from stage_servers.engine.served import ServedModel

logger = logging.getLogger(__name__)
T = TypeVar("T")

_STARVED_PAUSE_S = 0.001


@dataclass(frozen=True, slots=True)
class Encoded:
    """One media item's embedding."""

    embedding: torch.Tensor  # [num_tokens, embedding_width]
    device_s: float  # its share of the batch's time, by tokens


@dataclass(frozen=True, slots=True)
class _EncodeJob:
    pixels: PixelInput
    done: Future[Encoded]


class EngineThread:
    """Runs steps and encode batches one after the other, never two at once.

    Each turn: take the calls that came in, encode one batch of pictures,
    run one step. A batch lets one step go first where the engine wants it.
    `on_step` is called in this thread with every step's output that holds
    news, `on_crash` if a step raises: then the thread is over, for nobody
    knows what the engine holds.
    """

    def __init__(
        self,
        model: ServedModel,
        engine: Engine,
        *,
        on_step: Callable[[StepOutput], None],
        on_crash: Callable[[Exception], object],
        max_encode_tokens: int,
    ) -> None:
        self._model = model
        self._engine = engine
        self._on_step = on_step
        self._on_crash = on_crash
        self._max_encode_tokens = max_encode_tokens
        self._calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._encodes: deque[_EncodeJob] = deque()
        self._encode_turns = EncodeTurns()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self.num_encoding = 0

    @property
    def num_encodes_waiting(self) -> int:
        return len(self._encodes)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends after the turn at hand; calls not yet taken are dropped."""
        self._calls.put(None)
        self._thread.join()

    def post(self, call: Callable[[], object]) -> None:
        """Runs `call` in the engine thread before its next step; from any thread."""
        self._calls.put(call)

    async def call(self, function: Callable[[], T]) -> T:
        """Runs `function` in the engine thread and returns what it returns or raises."""
        done: Future[T] = Future()

        def run() -> None:
            if done.set_running_or_notify_cancel():
                _settle(done, function)

        self.post(run)
        return await asyncio.wrap_future(done)

    async def encode(self, pixels: PixelInput) -> Encoded:
        """One item's embedding; items that wait together are encoded as one batch.

        Cancelling drops the item if its turn has not come.
        """
        job = _EncodeJob(pixels, Future())
        self.post(lambda: self._encodes.append(job))
        return await asyncio.wrap_future(job.done)

    def _run(self) -> None:
        try:
            self._turn_until_stopped()
        except Exception as error:
            logger.exception("the engine crashed")
            self._on_crash(error)

    def _turn_until_stopped(self) -> None:
        while not self._stopping:
            self._take_calls(block=not (self._encodes or self._engine.has_work))
            if self._stopping:
                break
            if self._encodes and not self._encode_turns.yields(lambda: self._engine.wants_step_first):
                self._encode_batch()
                self._take_calls(block=False)  # a prompt that came meanwhile need not wait for the next step
                if self._stopping:
                    break
            if self._engine.has_work and not self._step():
                time.sleep(_STARVED_PAUSE_S)

    def _take_calls(self, *, block: bool) -> None:
        while True:
            try:
                call = self._calls.get(block=block)
            except queue.Empty:
                return
            if call is None:
                self._stopping = True
                return
            try:
                call()
            except Exception:
                logger.exception("a call in the engine thread failed")
            block = False

    def _step(self) -> bool:
        """Whether anything ran; not so where what is ready waits for blocks that peers' leases hold."""
        output = self._engine.step()
        if output.tokens or output.failed or output.prefilled:
            self._on_step(output)
        return output.num_tokens > 0

    def _encode_batch(self) -> None:
        batch = self._next_batch()
        if not batch:
            return
        self.num_encoding = len(batch)
        started_s = time.perf_counter()
        try:
            embeddings = self._model.encode([job.pixels for job in batch])
        except Exception as error:
            logger.exception("encoding %d media items failed", len(batch))
            for job in batch:
                job.done.set_exception(error)
        else:
            each_s = (time.perf_counter() - started_s) / sum(job.pixels.num_tokens for job in batch)
            for job, embedding in zip(batch, embeddings, strict=True):
                job.done.set_result(Encoded(embedding, job.pixels.num_tokens * each_s))
        finally:
            self.num_encoding = 0

    def _next_batch(self) -> list[_EncodeJob]:
        """Waiting items in order of arrival up to the token bound; at least one."""
        batch: list[_EncodeJob] = []
        tokens = 0
        while self._encodes:
            job = self._encodes[0]
            if batch and tokens + job.pixels.num_tokens > self._max_encode_tokens:
                break
            self._encodes.popleft()
            if job.done.set_running_or_notify_cancel():
                batch.append(job)
                tokens += job.pixels.num_tokens
        return batch


def _settle(done: Future[T], function: Callable[[], T]) -> None:
    try:
        done.set_result(function())
    except Exception as error:
        done.set_exception(error)
