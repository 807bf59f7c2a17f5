"""Where the time of running and recently ended requests went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from coordinator.errors import NotFoundError
from coordinator.events import StageSpan
from coordinator.request import Request
from coordinator.story import stage_story
from core.clock import Clock
from core.lifecycle import RequestState
from core.stages import ModalityGroup

_NUM_KEPT = 1000


@dataclass(frozen=True, slots=True)
class RequestTrace:
    """One request; milliseconds count from its arrival, None: that has not happened."""

    request_id: str
    tenant: str
    group: ModalityGroup
    state: RequestState
    arrival_s: float  # on the coordinator's clock
    prompt_tokens: int
    output_tokens: int
    media_tokens: int
    num_media: int
    cached_tokens: int
    num_cached_media: int
    num_dispatches: int
    num_moves: int
    queued_ms: float  # its newest wait for dispatch began; before the first it was prepared
    dispatched_ms: float | None  # the end of that wait
    first_token_ms: float | None
    end_ms: float | None  # its last token, or its failure
    instance_ids: tuple[str, ...]  # of the present dispatch; empty while it waits
    stages: tuple[StageSpan, ...]  # that were reported, in order of start
    error: str = ""  # why it failed


class Recent:
    """Reads the dispatcher's requests while they run, and keeps the newest that have ended."""

    def __init__(self, requests: Mapping[str, Request], clock: Clock, num_kept: int = _NUM_KEPT) -> None:
        self._requests = requests
        self._clock = clock
        self._num_kept = num_kept
        self._ended: dict[str, RequestTrace] = {}  # oldest first

    def note_end(self, request: Request) -> None:
        """When it ends, and again when all reports of it are here; its end is when it was first told."""
        now_s = self._clock.now_s()
        trace = make_trace(request, now_s)
        before = self._ended.pop(request.request_id, None)
        if before is not None and before.arrival_s == request.arrival_s and before.end_ms is not None:
            trace = replace(trace, end_ms=before.end_ms)
        self._ended[request.request_id] = trace
        while len(self._ended) > self._num_kept:
            del self._ended[next(iter(self._ended))]

    def newest(self, limit: int | None) -> tuple[RequestTrace, ...]:
        """In order of their ends, then those that run in order of arrival; of all the last `limit`."""
        now_s = self._clock.now_s()
        running = (make_trace(each, now_s) for each in self._requests.values() if not each.is_final)
        found = (*self._ended.values(), *running)
        return found if limit is None else found[-limit:]

    def get(self, request_id: str) -> RequestTrace:
        """Raises NotFoundError where it neither runs nor is among those kept."""
        request = self._requests.get(request_id)
        if request is not None and not request.is_final:
            return make_trace(request, self._clock.now_s())
        if request_id not in self._ended:
            raise NotFoundError("request_id", f"{request_id} is not among the {self._num_kept} newest")
        return self._ended[request_id]


def make_trace(request: Request, now_s: float) -> RequestTrace:
    """As it is now; it ended now, if it has ended."""

    def since_arrival(moment_s: float | None) -> float | None:
        return None if moment_s is None else (moment_s - request.arrival_s) * 1e3

    placement = request.placement
    return RequestTrace(
        request_id=request.request_id,
        tenant=request.tenant,
        group=request.group,
        state=request.state,
        arrival_s=request.arrival_s,
        prompt_tokens=len(request.prompt),
        output_tokens=request.num_outputs,
        media_tokens=sum(request.media_tokens),
        num_media=len(request.media),
        cached_tokens=request.cached_tokens,
        num_cached_media=len(request.cached_media),
        num_dispatches=request.num_attempts,
        num_moves=request.num_moves,
        queued_ms=(request.queued_s - request.arrival_s) * 1e3,
        dispatched_ms=since_arrival(request.dispatched_s),
        first_token_ms=since_arrival(request.first_token_s),
        end_ms=since_arrival(now_s) if request.is_final else None,
        instance_ids=() if placement is None else tuple(sorted(placement.instance_ids)),
        stages=stage_story(request, now_s),
        error=request.error,
    )
