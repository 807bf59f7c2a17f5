"""What is said of a request when it has ended: to the client, and in the log."""

from __future__ import annotations

import logging

from coordinator.events import FinishedEvent, StageSpan, Usage
from coordinator.observer import RequestEnd
from coordinator.request import Request
from core.stages import Stage

log = logging.getLogger(__name__)


def finished_event(request: Request, now_s: float) -> FinishedEvent:
    assert request.output.finish is not None
    return FinishedEvent(
        reason=request.output.finish,
        stop_string=request.output.stop_string,
        usage=_usage(request),
        stages=stage_story(request, now_s),
    )


def request_end(request: Request, now_s: float) -> RequestEnd:
    """What observers are told of a request in a final state."""

    def since_arrival(moment_s: float | None) -> float | None:
        return None if moment_s is None else moment_s - request.arrival_s

    ended_s = now_s if request.finished_s is None else request.finished_s
    return RequestEnd(
        request_id=request.request_id,
        tenant=request.tenant,
        group=request.group,
        priority=request.priority,
        state=request.state,
        finish=request.output.finish,
        arrival_ns=request.arrival_ns,
        queued_s=since_arrival(request.first_dispatched_s),
        first_token_s=since_arrival(request.first_token_s),
        took_s=ended_s - request.arrival_s,
        usage=_usage(request),
        spans=stage_story(request, ended_s),
        num_dispatches=request.num_attempts,
        num_moves=request.num_moves,
        trace=request.trace,
        error=request.error,
        seat=request.seat,
    )


def _usage(request: Request) -> Usage:
    return Usage(
        prompt_tokens=len(request.prompt),
        completion_tokens=request.num_outputs,
        media_tokens=sum(request.media_tokens),
        cached_tokens=request.cached_tokens,
        cached_media=len(request.cached_media),
    )


def stage_story(request: Request, now_s: float) -> tuple[StageSpan, ...]:
    """In order of start; the decode span as seen from here where its report is still under way."""
    stages = list(request.stages)
    decoded = request.num_outputs - request.outputs_at_dispatch > 1
    num_reported = sum(span.stage is Stage.DECODE for span in stages)
    # Each instance that the request moved away from has reported its part.
    if decoded and num_reported == request.num_moves and request.placement is not None:
        since_s = request.moved_s or request.first_token_s
        assert since_s is not None
        start_ms, end_ms = ((moment - request.arrival_s) * 1e3 for moment in (since_s, now_s))
        stages.append(StageSpan(Stage.DECODE, request.placement.decode, start_ms, end_ms))
    return tuple(sorted(stages, key=lambda span: span.start_ms))


def log_end(request: Request, now_s: float) -> None:
    log.info(
        "request %s: %s, %d prompt and %d output tokens, %.1f ms, dispatched %d times",
        request.request_id,
        request.state.value,
        len(request.prompt),
        request.num_outputs,
        (now_s - request.arrival_s) * 1e3,
        request.num_attempts,
        extra={"request_id": request.request_id, "tenant": request.tenant},
    )
