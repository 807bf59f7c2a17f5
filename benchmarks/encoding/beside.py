"""What an engine step takes while pictures are decoded and preprocessed, by threads or by processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, shared_memory
from pathlib import Path
from statistics import median
from typing import Any

import torch

from cli.load.outcomes import quantiles
from core.families import load_family
from core.sampling import SamplingParams
from core.sequence import SequenceSpec
from kv_transfer.blocks import BlockAllocator
from stage_servers.engine.engine import Engine
from stage_servers.engine.families import adapter_for
from stage_servers.engine.media import decode_picture
from stage_servers.engine.model import Model
from stage_servers.engine.records import EngineConfig

BATCH = 8
_CONTEXT = 128
_OUTPUTS = 64
_BLOCK_TOKENS = 16
_MOST_BYTES = 256 << 20  # of one picture's pixels
_LEAST_PICTURES = 3

_processor: Any = None
_family: Any = None


@dataclass(frozen=True, slots=True)
class Beside:
    """One way of preparing pictures, and the steps meanwhile."""

    pictures: int
    picture_s: float  # from one to the next
    steps_ms: dict[str, float]


class Steps:
    """Decode steps of a batch whose context stays about as long as it is."""

    def __init__(self, model: Model) -> None:
        num_blocks = BATCH * (_CONTEXT + _OUTPUTS) // _BLOCK_TOKENS + BATCH
        shape = (model.kv_planes, num_blocks, _BLOCK_TOKENS, model.kv_token_elements)
        pool = torch.zeros(shape, dtype=model.dtype)
        config = EngineConfig(512, BATCH, _BLOCK_TOKENS)
        self._engine = Engine(model, pool, BlockAllocator(num_blocks), config)
        self._num_asked = 0

    def run(self, until: Callable[[], bool]) -> list[float]:
        """Seconds of each decode step; sequences that end are replaced unmeasured."""
        seconds = []
        while not until():
            if self._engine.load.num_decoding < BATCH:
                self._refill()
            started_s = time.perf_counter()
            self._engine.step()
            seconds.append(time.perf_counter() - started_s)
        return seconds

    def _refill(self) -> None:
        while self._engine.load.num_decoding + self._engine.load.num_prefilling < BATCH:
            prompt = tuple((7 * token + self._num_asked) % 250 for token in range(_CONTEXT))
            spec = SequenceSpec(f"r{self._num_asked}", 0, prompt, SamplingParams(_OUTPUTS))
            self._engine.add_prefill(spec, hand_over=False)
            self._num_asked += 1
        while self._engine.load.num_prefilling:
            self._engine.step()


def measure(steps: Steps, data: bytes, executor: Executor | None, seconds: float) -> Beside:
    """`executor` has one worker, which is never idle; None: nothing is prepared."""
    end_s = time.perf_counter() + seconds
    if executor is None:
        return Beside(0, 0.0, _milliseconds(steps.run(lambda: time.perf_counter() >= end_s)))
    executor.submit(prepare, data).result()
    over = threading.Event()
    feeding = ThreadPoolExecutor(1).submit(_feed, executor, data, end_s, over)
    taken = _milliseconds(steps.run(over.is_set))
    each_s = feeding.result()
    return Beside(len(each_s), median(each_s), taken)


def _feed(executor: Executor, data: bytes, end_s: float, over: threading.Event) -> list[float]:
    """Seconds of each picture; this thread only waits."""
    each_s: list[float] = []
    try:
        while len(each_s) < _LEAST_PICTURES or time.perf_counter() < end_s:
            started_s = time.perf_counter()
            executor.submit(prepare, data).result()
            each_s.append(time.perf_counter() - started_s)
    finally:
        over.set()
    return each_s


@contextmanager
def executors(folder: Path) -> Iterator[dict[str, Executor | None]]:
    """One worker of each kind, warm."""
    block = shared_memory.SharedMemory(create=True, size=_MOST_BYTES)
    processes = ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=_start, initargs=(folder, block.name)
    )
    _start(folder, None)
    try:
        with ThreadPoolExecutor(1) as threads, processes:
            yield {"nothing": None, "a thread": threads, "a process": processes}
    finally:
        block.close()
        block.unlink()


def prepare(data: bytes) -> int:
    """In a worker: from file to pixels, in a process into the block that its parent reads."""
    pixels, _ = _family.preprocess(_processor, decode_picture(data))
    if _block is not None:
        target = torch.frombuffer(_block.buf, dtype=torch.float32, count=pixels.numel())
        target.copy_(pixels.flatten())
    return int(pixels.numel())


_block: shared_memory.SharedMemory | None = None


def _start(folder: Path, block: str | None) -> None:
    global _processor, _family, _block  # noqa: PLW0603 - a pool's worker has no other place
    torch.set_num_threads(1)
    adapter = adapter_for(load_family(folder))
    _processor, _family = adapter.image_processor(folder), adapter(None)
    _block = None if block is None else shared_memory.SharedMemory(block)


def _milliseconds(seconds: list[float]) -> dict[str, float]:
    return {**quantiles(each * 1e3 for each in seconds), "max": 1e3 * max(seconds)}
