"""Items that wait for the device, and the part of the next ones that it runs. Engine thread only."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.encode_order import EncodeOrder, EncodeSchedule, Slice
from core.estimate import RunningEstimate

if TYPE_CHECKING:
    import torch

    from stage_servers.engine.families.adapter import PixelInput
    from stage_servers.engine.served import ServedModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Encoded:
    """One media item's embedding."""

    embedding: torch.Tensor  # [num_tokens, embedding_width]
    device_s: float  # its share of the batch's time, by tokens
    host_s: float = 0.0  # of preprocessing


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """One preprocessed item; `done` is running from the moment it waits here."""

    pixels: PixelInput
    arrived_s: float
    place: int
    done: Future[Encoded]
    comes_back: bool = False  # to a prompt that this engine has

    @property
    def num_tokens(self) -> int:
        return self.pixels.num_tokens


@dataclass(slots=True)
class _Run:
    """Items whose encoding has begun."""

    parts: Iterator[list[torch.Tensor] | None]
    device_s: float = 0.0


class EncodeQueue:
    """Runs what core.encode_order says, a slice at a time; learns from it what items take."""

    def __init__(
        self,
        model: ServedModel,
        estimate: RunningEstimate,
        *,
        most_tokens: int,
        slice_s: float,
        order: EncodeOrder,
    ) -> None:
        self._model = model
        self._estimate = estimate
        self._schedule: EncodeSchedule[Encoding] = EncodeSchedule(
            estimate.seconds,
            most_tokens=most_tokens,
            slice_s=slice_s,
            order=order,
            padded=model.padded_tokens,
        )
        self._runs: dict[Encoding, _Run] = {}  # by the first of their items
        self.num_running = 0
        self._num_coming_back = 0

    @property
    def num_waiting(self) -> int:
        return len(self._schedule)

    @property
    def has_work(self) -> bool:
        return self._schedule.has_work

    def add(self, encoding: Encoding) -> None:
        """Unless it was cancelled on its way here."""
        if encoding.done.set_running_or_notify_cancel():
            self._schedule.add(encoding)

    def drop(self, encoding: Encoding) -> None:
        """Lets go of an item wherever it is; one that is done is no error."""
        self._schedule.drop(encoding)
        self._runs.pop(encoding, None)
        self._count_running()

    def take_coming_back(self) -> int:
        """How many embeddings were made for prompts of this engine since it was last asked."""
        num_coming, self._num_coming_back = self._num_coming_back, 0
        return num_coming

    def run_slice(self) -> float:
        """The device time it took, seconds; errors go to who waits for the items."""
        part = self._schedule.next()
        if part is None:
            return 0.0
        first = part.items[0]
        started_s = time.perf_counter()
        try:
            run = self._runs.setdefault(first, _Run(self._begin(part)))
            self._count_running(len(part.items))
            embeddings = next(run.parts)
        except Exception as error:
            logger.exception("encoding %d media items failed", len(part.items))
            self._fail(part, error)
            return time.perf_counter() - started_s
        seconds = time.perf_counter() - started_s
        run.device_s += seconds
        if embeddings is not None:
            del self._runs[first]
            self._settle(part, embeddings, run.device_s)
        self._count_running()
        return seconds

    def _begin(self, part: Slice[Encoding]) -> Iterator[list[torch.Tensor] | None]:
        return self._model.encode_in_parts([each.pixels for each in part.items], part.count)

    def _settle(self, part: Slice[Encoding], embeddings: list[torch.Tensor], device_s: float) -> None:
        num_tokens = sum(each.num_tokens for each in part.items)
        self._estimate.note(num_tokens, device_s)
        for each, embedding in zip(part.items, embeddings, strict=True):
            self._num_coming_back += each.comes_back
            each.done.set_result(Encoded(embedding, device_s * each.num_tokens / num_tokens))

    def _fail(self, part: Slice[Encoding], error: Exception) -> None:
        for each in part.items:
            self.drop(each)
            each.done.set_exception(error)

    def _count_running(self, num_items: int = 0) -> None:
        self.num_running = max(num_items, len(self._runs))
