"""Sends planned requests from one event loop, at their times or as places are free."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cli.load.outcomes import Outcome
from cli.load.workload import PlannedRequest
from elasticmm_client import ElasticMMError

OnOutcome = Callable[[Outcome], None]


@dataclass(frozen=True, slots=True)
class Answered:
    """What an answer took, in seconds from when it was asked for, and what it was made of."""

    ttft_s: float | None
    tpot_s: float | None
    prompt_tokens: int
    media_tokens: int
    cached_tokens: int
    output_tokens: int
    cached_media: int = 0  # where the door tells it
    stage_s: tuple[tuple[str, float], ...] = ()


class Asker(Protocol):
    """One door of a cluster."""

    async def connect(self) -> None:
        """Before the clock runs. Raises ElasticMMError."""
        ...

    async def ask(self, request: PlannedRequest) -> Answered:
        """Raises ElasticMMError."""
        ...


async def send_all(
    asker: Asker, requests: Sequence[PlannedRequest], num_places: int, start_s: float, on_outcome: OnOutcome
) -> None:
    """Returns when all have ended; `start_s` is the run's first moment on the monotonic clock.

    Cancelling it cancels what is under way, of which `on_outcome` hears nothing.
    """
    await asyncio.sleep(max(0.0, start_s - time.monotonic()))
    places = asyncio.Semaphore(num_places)
    async with asyncio.TaskGroup() as group:
        for request in requests:
            if request.at_s is None:
                await places.acquire()
            else:
                await asyncio.sleep(max(0.0, start_s + request.at_s - time.monotonic()))
            task = group.create_task(_send(asker, request, start_s))
            task.add_done_callback(lambda done: _finish(done, places, on_outcome))


def _finish(task: asyncio.Task[Outcome], places: asyncio.Semaphore, on_outcome: OnOutcome) -> None:
    places.release()
    if not task.cancelled() and task.exception() is None:
        on_outcome(task.result())


async def _send(asker: Asker, request: PlannedRequest, start_s: float) -> Outcome:
    """Times count from the planned arrival where there is one, so that a late client hides nothing."""
    sent_s = time.monotonic() - start_s
    begin_s = sent_s if request.at_s is None else request.at_s
    try:
        answered = await asker.ask(request)
    except ElasticMMError as error:
        end_s = time.monotonic() - start_s
        return Outcome(request.index, request.kind, begin_s, end_s, error=f"{error.code}: {error}")
    late_s = sent_s - begin_s
    return Outcome(
        index=request.index,
        kind=request.kind,
        start_s=begin_s,
        end_s=time.monotonic() - start_s,
        ttft_s=None if answered.ttft_s is None else answered.ttft_s + late_s,
        tpot_s=answered.tpot_s,
        prompt_tokens=answered.prompt_tokens,
        media_tokens=answered.media_tokens,
        cached_tokens=answered.cached_tokens,
        cached_media=answered.cached_media,
        output_tokens=answered.output_tokens,
        stage_s=answered.stage_s,
    )
