"""Sends planned requests from processes of its own, so that clients do not wait for other Python."""

from __future__ import annotations

import asyncio
import multiprocessing
import queue
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess

from cli.load.grpc_asker import GrpcAsker
from cli.load.outcomes import Outcome
from cli.load.sending import OnOutcome, send_all
from cli.load.workload import PlannedRequest
from elasticmm_client import AsyncClient

_READY_TIMEOUT_S = 120.0
_LEAD_S = 0.2  # from the word to the start
_POLL_S = 1.0


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
        asker = GrpcAsker(client, spec.timeout_s)
        await asker.connect()
        start_s = await asyncio.to_thread(gate.wait)
        await send_all(asker, requests, num_places, start_s, on_outcome)
