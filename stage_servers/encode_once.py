"""Where an encode job's embedding comes from: the cache, another job on the same item, or its own work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stage_servers.cache.embeddings import EmbeddingCache
from stage_servers.cache.held import HeldEmbedding

if TYPE_CHECKING:
    import torch

    from stage_servers.encode_stage import EncodeJob


@dataclass(frozen=True, slots=True)
class Encoding:
    """What a job's own work makes."""

    embedding: torch.Tensor  # [num_tokens, embedding_width]
    device_s: float  # its share of its batch's time
    host_s: float  # of preprocessing


@dataclass(frozen=True, slots=True)
class Obtained:
    """An embedding, in use until it is released."""

    held: HeldEmbedding
    device_s: float = 0.0  # of the device, for this job
    is_cached: bool = False  # nothing was fetched or encoded for this job


@dataclass(slots=True, eq=False)
class _Flight:
    """Work that several jobs may wait for."""

    task: asyncio.Task[Obtained]
    num_waiting: int = 0
    is_charged: bool = False  # one of them has been told what it took


class EncodeOnce:
    """Jobs with the same cache key that come while one is at work wait for that one.

    The work goes on as long as anybody waits; if it fails, all of them fail. `work` is called for a job whose
    embedding has to be made.
    """

    def __init__(self, cache: EmbeddingCache, work: Callable[[EncodeJob], Awaitable[Encoding]]) -> None:
        self._cache = cache
        self._work = work
        self._flights: dict[bytes, _Flight] = {}

    async def obtain(self, job: EncodeJob) -> Obtained:
        """The caller releases what it gets. Raises what the work raises."""
        key = self._cache.key_of(job.cache, job.span)
        if key is None:
            encoding = await self._work(job)
            return Obtained(_unkept(encoding.embedding), encoding.device_s)
        flight = self._flights.get(key)
        if flight is None:
            held = self._cache.find(key, job.span.num_tokens)
            if held is not None:
                return Obtained(held, is_cached=True)
            flight = self._flights[key] = _Flight(asyncio.create_task(self._fly(key, job)))
        return await self._wait(key, flight)

    def check_idle(self) -> None:
        """Raises AssertionError if work is under way."""
        if self._flights:
            raise AssertionError(f"{len(self._flights)} items are being encoded")

    async def _wait(self, key: bytes, flight: _Flight) -> Obtained:
        flight.num_waiting += 1
        try:
            made = await asyncio.shield(flight.task)
            held = made.held.share()
        finally:
            flight.num_waiting -= 1
            if not flight.num_waiting:
                await self._end(key, flight)
        if flight.is_charged:
            return Obtained(held, is_cached=True)
        flight.is_charged = True
        return Obtained(held, made.device_s)

    async def _fly(self, key: bytes, job: EncodeJob) -> Obtained:
        """The flight itself is a user of what it made until nobody waits any more."""
        try:
            return await self._make(key, job)
        finally:
            self._leave(key, asyncio.current_task())

    async def _make(self, key: bytes, job: EncodeJob) -> Obtained:
        assert job.cache is not None
        encoding = await self._work(job)
        seconds = encoding.device_s + encoding.host_s
        held = self._cache.keep(key, job.cache.tenant, encoding.embedding, seconds)
        return Obtained(held or _unkept(encoding.embedding), encoding.device_s)

    async def _end(self, key: bytes, flight: _Flight) -> None:
        """Nobody waits any more: the work is given up if it is not done."""
        self._leave(key, flight.task)
        if flight.task.done():
            _release_made(flight.task)
            return
        flight.task.add_done_callback(_release_made)  # it may end well all the same
        flight.task.cancel()
        await asyncio.wait([flight.task])

    def _leave(self, key: bytes, task: asyncio.Task[Obtained] | None) -> None:
        flight = self._flights.get(key)
        if flight is not None and flight.task is task:
            del self._flights[key]


def _release_made(task: asyncio.Task[Obtained]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().held.release()


def _unkept(embedding: torch.Tensor) -> HeldEmbedding:
    return HeldEmbedding(embedding, lambda: None)
