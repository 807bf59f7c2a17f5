"""The one thread that owns the device: it takes calls between steps and runs whatever is runnable."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from core.encode_order import SLICE_S, EncodeOrder
from core.encode_turns import EncodeTurns
from core.estimate import RunningEstimate
from stage_servers.encoding.queue import Encoded, EncodeQueue, Encoding
from stage_servers.engine.device import use_device

if TYPE_CHECKING:
    from stage_servers.engine.engine import Engine
    from stage_servers.engine.families.adapter import PixelInput
    from stage_servers.engine.records import StepOutput
    from stage_servers.engine.served import ServedModel

logger = logging.getLogger(__name__)
T = TypeVar("T")

_STARVED_PAUSE_S = 0.001
_ENCODE_TOKEN_S = 2.5e-4  # until some were encoded
_FIRST_TOKENS = 64
_COMES_BACK_S = 0.002  # that a step waits for an embedding on its way through the event loop, at most
_KEPT = 0.995  # of the longest turn, with every turn


class EngineThread:
    """Runs steps and slices of encoding one after the other, never two at once.

    Each turn: take the calls that came in, then run what core.encode_turns says. `on_step` is called in this
    thread with every step's output that holds news, `on_crash` if a step raises: then the thread is over, for
    nobody knows what the engine holds.
    """

    def __init__(
        self,
        model: ServedModel,
        engine: Engine,
        *,
        on_step: Callable[[StepOutput], None],
        on_crash: Callable[[Exception], object],
        max_encode_tokens: int,
        slice_s: float = SLICE_S,
        encode_order: EncodeOrder = "shortest",
    ) -> None:
        self._engine = engine
        self._device = model.device
        self._note_rest = model.note_rest
        self._on_step = on_step
        self._on_crash = on_crash
        self._calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self.encode_estimate = RunningEstimate(_ENCODE_TOKEN_S, _FIRST_TOKENS)
        self._encodes = EncodeQueue(
            model, self.encode_estimate, most_tokens=max_encode_tokens, slice_s=slice_s, order=encode_order
        )
        self._encode_order: EncodeOrder = encode_order
        self._turns = EncodeTurns(slice_s)
        self._stopping = False
        self.longest_turn_s = 0.0  # that a call may have to wait; what was long ago counts less
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def num_encodes_waiting(self) -> int:
        return self._encodes.num_waiting

    @property
    def num_encoding(self) -> int:
        return self._encodes.num_running

    def start(self) -> None:
        self._thread.start()

    def aim_for(self, tpot_s: float) -> None:
        """Seconds per token that encoding leaves decodes; 0.0: as soon as is fair."""
        self.post(lambda: self._turns.aim_for(tpot_s))

    def stop(self) -> None:
        """Ends after the turn at hand, and the engine's own threads; calls not yet taken are dropped."""
        self._calls.put(None)
        self._thread.join()
        self._engine.close()

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

    async def encode(
        self,
        pixels: PixelInput,
        arrived_s: float | None = None,
        place: int = 0,
        *,
        comes_back: bool = False,
    ) -> Encoded:
        """One item's embedding, in the order of core.encode_order; `arrived_s` (monotonic): None is now.

        `comes_back`: to a prompt of this engine, whose next step waits a moment for it. Cancelling drops the
        item before its next slice.
        """
        since_s = time.monotonic() if arrived_s is None else arrived_s
        encoding = Encoding(pixels, since_s, place, Future(), comes_back)
        self.post(lambda: self._encodes.add(encoding))
        try:
            return await asyncio.wrap_future(encoding.done)
        except asyncio.CancelledError:
            self.post(lambda: self._encodes.drop(encoding))
            raise

    def _run(self) -> None:
        try:
            use_device(self._device)
            self._turn_until_stopped()
        except Exception as error:
            logger.exception("the engine crashed")
            self._on_crash(error)

    def _turn_until_stopped(self) -> None:
        while not self._stopping:
            has_work = self._engine.has_work
            self._take_calls(block=not (self._encodes.has_work or has_work))
            if self._stopping:
                break
            if self._is_encode_next():
                self._run_slice()
                continue
            self._let_come_back()
            if self._stopping:
                break
            if self._engine.has_work and not self._step() and not self._encodes.has_work:
                self._note_rest()
                time.sleep(_STARVED_PAUSE_S)

    def _is_encode_next(self) -> bool:
        if not (self._encodes.has_work and self._engine.has_work):
            return self._encodes.has_work
        return self._turns.is_encode_next(lambda: self._engine.wants_step_first)

    def _let_come_back(self) -> None:
        """Embeddings made since the last step come back through the event loop: a prompt that just misses one
        would wait for a whole step of decodes.
        """
        num_coming = self._encodes.take_coming_back()
        awaited = self._engine.num_awaited if num_coming and self._engine.has_work else 0
        if not awaited:
            return
        self._note_rest()
        end_s = time.monotonic() + _COMES_BACK_S
        while self._engine.num_awaited > awaited - num_coming and not self._stopping:
            left_s = max(0.0, end_s - time.monotonic())
            try:
                self._take(self._calls.get(timeout=left_s))
            except queue.Empty:
                return

    def _take_calls(self, *, block: bool) -> None:
        """With `block` at least one of them."""
        while True:
            try:
                call = self._calls.get(block=False)
            except queue.Empty:
                if not block:
                    return
                self._note_rest()
                call = self._calls.get()
            self._take(call)
            if self._stopping:
                return
            block = False

    def _take(self, call: Callable[[], object] | None) -> None:
        """None: to stop."""
        if call is None:
            self._stopping = True
            return
        try:
            call()
        except Exception:
            logger.exception("a call in the engine thread failed")

    def _step(self) -> bool:
        """Whether anything ran; not so where what is ready waits for blocks that peers' leases hold."""
        output = self._engine.step()
        self._turns.note_step(output.duration_s)
        self._note_turn(output.duration_s)
        if output.tokens or output.failed or output.prefilled:
            self._on_step(output)
        return output.num_tokens > 0

    def _run_slice(self) -> None:
        seconds = self._encodes.run_slice()
        self._note_turn(seconds)
        is_last = self._encode_order == "arrival" or not self._encodes.has_work
        self._turns.note_slice(seconds, is_last=is_last)

    def _note_turn(self, seconds: float) -> None:
        self.longest_turn_s = max(seconds, _KEPT * self.longest_turn_s)


def _settle(done: Future[T], function: Callable[[], T]) -> None:
    try:
        done.set_result(function())
    except Exception as error:
        done.set_exception(error)
