"""Where requests' time went, as messages."""

from __future__ import annotations

from coordinator.recent import RequestTrace
from coordinator.wire.inference import from_span
from coordinator.wire.stages import from_group
from elasticmm.v1 import admin_pb2 as pb


def from_trace(trace: RequestTrace, now_s: float) -> pb.RequestTrace:
    return pb.RequestTrace(
        request_id=trace.request_id,
        tenant=trace.tenant,
        group=from_group(trace.group),
        state=trace.state.value,
        age_s=now_s - trace.arrival_s,
        prompt_tokens=trace.prompt_tokens,
        output_tokens=trace.output_tokens,
        media_tokens=trace.media_tokens,
        media_items=trace.num_media,
        cached_tokens=trace.cached_tokens,
        cached_items=trace.num_cached_media,
        num_dispatches=trace.num_dispatches,
        num_moves=trace.num_moves,
        queued_ms=trace.queued_ms,
        dispatched_ms=trace.dispatched_ms,
        first_token_ms=trace.first_token_ms,
        end_ms=trace.end_ms,
        instance_ids=trace.instance_ids,
        stages=[from_span(span) for span in trace.stages],
        error=trace.error,
    )
