"""Fetch, preprocess, encode: each step bounded, in one order, and none on a loop that others wait for.

fetch ──► threads ──► EncodeQueue          an item is in the Room from its fetching
└────────── Room ───────────────┘          until the device is through with it
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from core.encode_order import SLICE_S, EncodeOrder, rank
from core.estimate import RunningEstimate
from core.sequence import MediaSpan
from stage_servers.encoding.gate import Gate
from stage_servers.encoding.item import MediaItem
from stage_servers.encoding.queue import Encoded
from stage_servers.encoding.room import Room
from stage_servers.encoding.workers import MediaWorkers
from stage_servers.engine_thread import EngineThread
from stage_servers.media_pull import MediaPuller, MediaSource

if TYPE_CHECKING:
    from stage_servers.engine.families.adapter import PixelInput
    from stage_servers.engine.served import ServedModel

_PIXEL_S = 5e-8  # preprocessing, until some was seen
_FIRST_PIXELS = 100_000


class EncodePipeline:
    """One per instance. Event loop; `close` when no item is under way."""

    def __init__(
        self,
        model: ServedModel,
        thread: EngineThread,
        puller: MediaPuller,
        *,
        num_workers: int,
        slice_s: float = SLICE_S,
        order: EncodeOrder = "shortest",
    ) -> None:
        self._model = model
        self._thread = thread
        self._puller = puller
        self._slice_s = slice_s
        self._order: EncodeOrder = order
        self._preprocessing = RunningEstimate(_PIXEL_S, _FIRST_PIXELS)
        self._room = Room(self._encode_s, lambda item: self._encode_s(item) > slice_s)
        self._gate = Gate(self._room, rank=self._rank, is_large=lambda item: self._encode_s(item) > slice_s)
        self._workers = MediaWorkers(
            num_workers, rank=self._rank, is_large=lambda item: self._preprocess_s(item) > slice_s
        )
        self._num_fetching = 0  # or preprocessed, or before that

    @property
    def num_waiting(self) -> int:
        """Items that are not on the device yet."""
        return self._num_fetching + self._thread.num_encodes_waiting

    @property
    def num_busy_workers(self) -> int:
        """Threads that preprocess, some perhaps for an item that was given up."""
        return self._workers.num_busy

    async def run(self, source: MediaSource, span: MediaSpan, *, comes_back: bool = False) -> Encoded:
        """`comes_back`: to a prompt of this instance. Cancelling lets go of the item wherever it is.

        Raises MediaError, MediaGoneError.
        """
        item = MediaItem(source, span, time.monotonic())
        self._num_fetching += 1
        is_fetching = True
        try:
            async with self._gate.inside(item):
                pixels, host_s = await self._prepare(item)
                self._num_fetching -= 1
                is_fetching = False
                encoded = await self._thread.encode(pixels, item.arrived_s, item.place, comes_back=comes_back)
                return replace(encoded, host_s=host_s)
        finally:
            self._num_fetching -= is_fetching

    async def _prepare(self, item: MediaItem) -> tuple[PixelInput, float]:
        data = await self._puller.pull(item.source)
        pixels, seconds = await self._workers.run(item, lambda: self._preprocess(data, item.span))
        self._preprocessing.note(item.num_pixels, seconds)
        return pixels, seconds

    def _preprocess(self, data: bytes, span: MediaSpan) -> tuple[PixelInput, float]:
        """In a worker's thread."""
        started_s = time.perf_counter()
        return self._model.preprocess(data, span), time.perf_counter() - started_s

    def _rank(self, item: MediaItem) -> tuple[float, int]:
        work_s = self._preprocess_s(item) + self._encode_s(item)
        return rank(work_s, item.arrived_s, self._order), item.place

    def _encode_s(self, item: MediaItem) -> float:
        return self._thread.encode_estimate.seconds(item.num_tokens)

    def _preprocess_s(self, item: MediaItem) -> float:
        return self._preprocessing.seconds(item.num_pixels)

    def check_idle(self) -> None:
        """Raises AssertionError if items are held; for when none is under way."""
        held = self._num_fetching, self._gate.num_waiting, self._room.num_items
        if any(held):
            raise AssertionError(f"media on their way: {held}")

    def close(self) -> None:
        self._workers.close()
