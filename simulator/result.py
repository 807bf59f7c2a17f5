"""What a simulation run gives: records of requests and instances, nothing summed up yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from core.lifecycle import RequestState
from simulator.cache_counts import CacheCounts
from simulator.job import Job
from simulator.usage import Usage


class RequestRecord(NamedTuple):
    """One request at its end; seconds from the start of the run, None for what did not happen."""

    request_id: str
    source: str
    has_media: bool
    state: RequestState
    prompt_tokens: int
    output_tokens: int
    arrival_s: float
    dispatched_s: float | None
    encoded_s: float | None
    first_token_s: float | None
    finished_s: float | None
    num_moves: int
    num_preemptions: int

    @property
    def ttft_s(self) -> float | None:
        return None if self.first_token_s is None else self.first_token_s - self.arrival_s

    @property
    def tpot_s(self) -> float | None:
        """None for an answer of one token."""
        if self.finished_s is None or self.first_token_s is None or self.output_tokens < 2:
            return None
        return (self.finished_s - self.first_token_s) / (self.output_tokens - 1)

    @property
    def latency_s(self) -> float | None:
        return None if self.finished_s is None else self.finished_s - self.arrival_s


def record_of(job: Job) -> RequestRecord:
    return RequestRecord(
        request_id=job.request.request_id,
        source=job.request.source,
        has_media=bool(job.request.pictures),
        state=job.state,
        prompt_tokens=job.work.prompt_tokens,
        output_tokens=job.outputs,
        arrival_s=job.request.arrival_s,
        dispatched_s=job.dispatched_s,
        encoded_s=job.encoded_s,
        first_token_s=job.first_token_s,
        finished_s=job.finished_s,
        num_moves=job.work.num_moves,
        num_preemptions=job.work.num_preemptions,
    )


@dataclass(frozen=True, slots=True)
class RoleSpan:
    """What an instance played for a while. `assignment` is "text:pd" and the like; "" while it switched."""

    instance_id: str
    start_s: float
    end_s: float
    assignment: str


@dataclass(frozen=True, slots=True)
class RunResult:
    """One run. `num_events` counts arrivals, starts and ends of stages (picture decoding is one) and of
    transfers, and steps.
    """

    records: tuple[RequestRecord, ...]
    spans: tuple[RoleSpan, ...]
    usage: dict[str, Usage]
    duration_s: float
    num_events: int
    num_switches: int
    num_moves: int
    caches: CacheCounts
