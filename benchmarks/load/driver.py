"""Sends planned requests from processes of its own, so that clients do not wait for other Python."""

from __future__ import annotations

import asyncio
import multiprocessing
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess

from benchmarks.load.outcomes import Outcome
from benchmarks.load.workload import PlannedRequest
from elasticmm_client import AsyncClient, ElasticMMError, GenerateResult, user_message

_READY_TIMEOUT_S = 120.0
_LEAD_S = 0.2  # from the word to the start
_POLL_S = 1.0

OnOutcome = Callable[[Outcome], None]


@dataclass(frozen=True, slots=True)
class DriveSpec:
    """How a run is driven. `concurrency` is shared out among the processes of a closed loop."""

    address: str
    concurrency: int
    num_processes: int = 1
    timeout_s: float = 600.0


class _Gate:
    """Lets all processes start at one moment."""

    def __init__(self, context: SpawnContext, num_processes: int) -> None:
        self._barrier = context.Barrier(num_processes + 1)
        self._word = context.Event()
        self._start_s = context.Value("d", 0.0)

    def open(self) -> None:
        """By the parent, once every process waits."""
        self._barrier.wait(_READY_TIMEOUT_S)
        self._start_s.value = time.monotonic() + _LEAD_S
        self._word.set()

    def wait(self) -> float:
        """By a process that is ready; the moment to start at (monotonic, one clock for the host)."""
        self._barrier.wait(_READY_TIMEOUT_S)
        self._word.wait()
        return float(self._start_s.value)


def drive(spec: DriveSpec, requests: Sequence[PlannedRequest], on_outcome: OnOutcome) -> list[Outcome]:
    """Runs all of them; `on_outcome` hears of each as it ends. Raises RuntimeError if a process dies."""
    context = multiprocessing.get_context("spawn")
    count = min(spec.num_processes, len(requests))
    outcomes: multiprocessing.Queue[Outcome | None] = context.Queue()
    gate = _Gate(context, count)
    processes = [
        context.Process(
            target=_run_process,
            args=(spec, requests[number::count], _places(spec.concurrency, count, number), gate, outcomes),
            daemon=True,
        )
        for number in range(count)
    ]
    for process in processes:
        process.start()
    try:
        gate.open()
        return list(_collect(outcomes, processes, on_outcome))
    finally:
        for process in processes:
            process.terminate()
            process.join()
        outcomes.close()


def _places(concurrency: int, num_processes: int, number: int) -> int:
    """This process's share of the closed loop, at least one."""
    return max(1, concurrency // num_processes + (number < concurrency % num_processes))


def _collect(
    outcomes: multiprocessing.Queue[Outcome | None], processes: Sequence[BaseProcess], on_outcome: OnOutcome
) -> Iterator[Outcome]:
    num_open = len(processes)
    while num_open:
        try:
            outcome = outcomes.get(timeout=_POLL_S)
        except queue.Empty:
            if any(process.exitcode not in (None, 0) for process in processes):
                raise RuntimeError("a load process died") from None
            continue
        if outcome is None:
            num_open -= 1
        else:
            on_outcome(outcome)
            yield outcome


def _run_process(
    spec: DriveSpec,
    requests: Sequence[PlannedRequest],
    num_places: int,
    gate: _Gate,
    outcomes: multiprocessing.Queue[Outcome | None],
) -> None:
    asyncio.run(_run_all(spec, requests, num_places, gate, outcomes.put))
    outcomes.put(None)


async def _run_all(
    spec: DriveSpec,
    requests: Sequence[PlannedRequest],
    num_places: int,
    gate: _Gate,
    on_outcome: OnOutcome,
) -> None:
    async with AsyncClient(spec.address) as client:
        await client.model()  # connects before the clock runs
        start_s = await asyncio.to_thread(gate.wait)
        await asyncio.sleep(max(0.0, start_s - time.monotonic()))
        places = asyncio.Semaphore(num_places)
        async with asyncio.TaskGroup() as group:
            for request in requests:
                if request.at_s is None:
                    await places.acquire()
                else:
                    await asyncio.sleep(max(0.0, start_s + request.at_s - time.monotonic()))
                task = group.create_task(_run_one(client, spec, request, start_s))
                task.add_done_callback(lambda done: _finish(done, places, on_outcome))


def _finish(task: asyncio.Task[Outcome], places: asyncio.Semaphore, on_outcome: OnOutcome) -> None:
    places.release()
    if not task.cancelled() and task.exception() is None:
        on_outcome(task.result())


async def _run_one(client: AsyncClient, spec: DriveSpec, request: PlannedRequest, start_s: float) -> Outcome:
    """Times count from the planned arrival where there is one, so that a late client hides nothing."""
    sent_s = time.monotonic() - start_s
    begin_s = sent_s if request.at_s is None else request.at_s
    stream = client.generate(
        [user_message(request.text, *request.images)],
        max_tokens=request.output_tokens,
        ignore_eos=True,
        timeout_s=spec.timeout_s,
    )
    try:
        result = await stream.result()
    except ElasticMMError as error:
        end_s = time.monotonic() - start_s
        return Outcome(request.index, request.kind, begin_s, end_s, error=f"{error.code}: {error}")
    return _outcome(request, result, begin_s, time.monotonic() - start_s, sent_s - begin_s)


def _outcome(
    request: PlannedRequest, result: GenerateResult, begin_s: float, end_s: float, late_s: float
) -> Outcome:
    return Outcome(
        index=request.index,
        kind=request.kind,
        start_s=begin_s,
        end_s=end_s,
        ttft_s=None if result.ttft_ms is None else result.ttft_ms / 1e3 + late_s,
        tpot_s=None if result.tpot_ms is None else result.tpot_ms / 1e3,
        prompt_tokens=result.usage.prompt_tokens,
        media_tokens=result.usage.media_tokens,
        output_tokens=result.usage.completion_tokens,
        cached_tokens=result.usage.cached_tokens,
        cached_media=result.usage.cached_media,
        stage_s=tuple((span.stage, (span.end_ms - span.start_ms) / 1e3) for span in result.stages),
    )
