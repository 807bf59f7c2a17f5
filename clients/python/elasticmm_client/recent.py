"""Where the time of running and recently ended requests went."""

from __future__ import annotations

from dataclasses import dataclass

from elasticmm.v1 import admin_pb2
from elasticmm_client.events import StageSpan, stages_from_proto
from elasticmm_client.roles import GROUPS


@dataclass(frozen=True, slots=True)
class RequestTrace:
    """One request; milliseconds count from its arrival, None: that has not happened."""

    request_id: str
    tenant: str
    group: str  # "text" or "multimodal"
    state: str  # "queued", "encoding", "prefilling", "decoding", "finished", "failed" or "cancelled"
    age_s: float  # since it arrived
    prompt_tokens: int
    output_tokens: int
    media_tokens: int
    media_items: int
    cached_tokens: int
    cached_items: int
    num_dispatches: int
    num_moves: int
    queued_ms: float  # its newest wait for dispatch began; before the first it was prepared
    dispatched_ms: float | None  # the end of that wait
    first_token_ms: float | None
    end_ms: float | None  # its last token, or its failure
    instances: tuple[str, ...]  # of the present dispatch
    stages: tuple[StageSpan, ...]  # in order of start
    error: str  # why it failed; empty if it did not

    @property
    def tpot_ms(self) -> float | None:
        """Mean time per token after the first; None before the end, and for one token."""
        if self.end_ms is None or self.first_token_ms is None or self.output_tokens < 2:
            return None
        return (self.end_ms - self.first_token_ms) / (self.output_tokens - 1)

    @property
    def ended_s_ago(self) -> float | None:
        return None if self.end_ms is None else self.age_s - self.end_ms / 1e3


@dataclass(frozen=True, slots=True)
class RecentRequests:
    """Those that ended in order of their ends, then those that run in order of arrival."""

    requests: tuple[RequestTrace, ...]
    slo_ttft_s: float  # what the cluster's policies aim at
    slo_tpot_s: float
    slo_multimodal_ttft_s: float  # to the first token of requests with media


def recent_from_proto(message: admin_pb2.GetRecentResponse) -> RecentRequests:
    return RecentRequests(
        tuple(_trace(each) for each in message.requests),
        message.slo_ttft_s,
        message.slo_tpot_s,
        message.slo_multimodal_ttft_s,
    )


def _trace(message: admin_pb2.RequestTrace) -> RequestTrace:
    return RequestTrace(
        request_id=message.request_id,
        tenant=message.tenant,
        group=GROUPS.get(message.group, "shared"),
        state=message.state,
        age_s=message.age_s,
        prompt_tokens=message.prompt_tokens,
        output_tokens=message.output_tokens,
        media_tokens=message.media_tokens,
        media_items=message.media_items,
        cached_tokens=message.cached_tokens,
        cached_items=message.cached_items,
        num_dispatches=message.num_dispatches,
        num_moves=message.num_moves,
        queued_ms=message.queued_ms,
        dispatched_ms=message.dispatched_ms if message.HasField("dispatched_ms") else None,
        first_token_ms=message.first_token_ms if message.HasField("first_token_ms") else None,
        end_ms=message.end_ms if message.HasField("end_ms") else None,
        instances=tuple(message.instance_ids),
        stages=stages_from_proto(message.stages),
        error=message.error,
    )
