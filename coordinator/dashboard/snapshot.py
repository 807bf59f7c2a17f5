"""All that the page shows at one moment, as plain JSON values; `_s_ago` counts back from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from coordinator.cache.admin import CacheAdmin
from coordinator.cluster import InstanceStatus
from coordinator.dashboard.comparisons import shadow_json, trial_json
from coordinator.dashboard.decisions import decisions_json
from coordinator.dashboard.timeline import KEPT_S, Timeline
from coordinator.events import StageSpan
from coordinator.planner import PlannedInstance, Planner
from coordinator.policy.decisions import DISPATCHES
from coordinator.policy.scheduler import Slo
from coordinator.policy.trials.shadow import DIFFERENCE
from coordinator.recent import Recent, RequestTrace
from coordinator.slo.verdict import verdict_of
from coordinator.stage_messages import CacheCounters
from coordinator.state import CoordinatorState
from coordinator.trials import Trials
from core.clock import Clock
from core.lifecycle import RequestState
from core.stages import ModalityGroup, roles_name

_NUM_REQUESTS = 60
_NUM_DECISIONS = 12


class Snapshots:
    """Reads; changes nothing."""

    def __init__(
        self,
        *,
        state: Callable[[], CoordinatorState],
        timeline: Timeline,
        recent: Recent,
        planner: Planner,
        caches: CacheAdmin,
        trials: Trials,
        slo: Slo,
        clock: Clock,
    ) -> None:
        self._state = state
        self._timeline = timeline
        self._recent = recent
        self._planner = planner
        self._caches = caches
        self._trials = trials
        self._slo = slo
        self._clock = clock

    def take(self) -> dict[str, Any]:
        now_s, state, plan = self._clock.now_s(), self._state(), self._planner.status()
        planned = {each.instance_id: each for each in plan.instances}
        return {
            "model": state.model,
            "version": state.version,
            "policy": plan.policy,
            "topology": state.topology,
            "uptime_s": state.uptime_s,
            "requests_waiting": state.num_waiting,
            "requests_running": state.num_running,
            "requests_finished": state.num_finished,
            "requests_failed": state.num_failed,
            "slo_ttft_ms": self._slo.ttft_s * 1e3,
            "slo_multimodal_ttft_ms": self._slo.group_ttft_s(ModalityGroup.MULTIMODAL) * 1e3,
            "slo_tpot_ms": self._slo.tpot_s * 1e3,
            "kept_s": KEPT_S,
            "instances": [_instance(each, planned.get(each.info.instance_id)) for each in state.instances],
            "trial": self._trial(),
            "shadow": self._shadow(now_s),
            "spans": self._spans(now_s),
            "samples": self._samples(now_s),
            "ends": self._ends(now_s),
            "requests": [_request(each, now_s) for each in self._recent.newest(_NUM_REQUESTS)],
            "caches": [
                _cache(name, pool) for name, pools in self._caches.status().instances for pool in pools
            ],
            "decisions": decisions_json(self._planner.why(None, _NUM_DECISIONS, DISPATCHES), now_s),
        }

    def _trial(self) -> dict[str, Any] | None:
        report = self._trials.trial_report_if_any()
        return None if report is None else trial_json(report)

    def _shadow(self, now_s: float) -> dict[str, Any] | None:
        report = self._trials.shadow_report_if_any()
        if report is None:
            return None
        decisions = self._trials.shadow_decisions(None, _NUM_DECISIONS, DISPATCHES - {DIFFERENCE})
        return shadow_json(report, decisions, now_s)

    def _ends(self, now_s: float) -> list[dict[str, Any]]:
        """Of all finished requests that are remembered, how they met their targets."""
        ends = (_end(each, self._slo, now_s) for each in self._recent.newest(None))
        return [end for end in ends if end is not None and end["s_ago"] <= KEPT_S]

    def _spans(self, now_s: float) -> list[dict[str, Any]]:
        return [
            {
                "instance": span.instance_id,
                "roles": span.roles,
                "group": span.group,
                "since_s_ago": now_s - span.since_s,
                "until_s_ago": now_s - span.until_s,
            }
            for span in self._timeline.spans
        ]

    def _samples(self, now_s: float) -> list[dict[str, Any]]:
        return [
            {"s_ago": now_s - each.at_s, "waiting": each.num_waiting, "running": each.num_running}
            for each in self._timeline.samples
        ]


def _instance(status: InstanceStatus, planned: PlannedInstance | None) -> dict[str, Any]:
    info, load = status.info, status.load
    return {
        "id": info.instance_id,
        "roles": roles_name(info.roles),
        "group": info.group.value,
        "device": info.device,
        "state": "serving" if planned is None else planned.state,
        "arm": planned.arm.value if planned is not None and planned.arm else "",
        "requests": status.num_requests,
        "encode_waiting": load.encode_waiting,
        "encode_running": load.encode_running,
        "prefill_waiting_tokens": load.prefill_waiting_tokens,
        "sequences_prefilling": load.sequences_prefilling,
        "sequences_decoding": load.sequences_decoding,
        "used_kv_blocks": info.total_kv_blocks - load.free_kv_blocks,
        "total_kv_blocks": info.total_kv_blocks,
        "sent_bytes": sum(each.size_bytes for each in status.transfers),
        "sends_in_flight": sum(each.in_flight for each in status.transfers),
    }


def _tpot_ms(trace: RequestTrace) -> float | None:
    if trace.end_ms is None or trace.first_token_ms is None or trace.output_tokens < 2:
        return None
    return (trace.end_ms - trace.first_token_ms) / (trace.output_tokens - 1)


def _end(trace: RequestTrace, slo: Slo, now_s: float) -> dict[str, Any] | None:
    if trace.state is not RequestState.FINISHED or trace.end_ms is None or trace.first_token_ms is None:
        return None
    tpot_ms = _tpot_ms(trace)
    per_token_s = None if tpot_ms is None else tpot_ms / 1e3
    return {
        "s_ago": now_s - trace.arrival_s - trace.end_ms / 1e3,
        "group": trace.group.value,
        "ttft_ms": trace.first_token_ms,
        "tpot_ms": tpot_ms,
        "prompt_tokens": trace.prompt_tokens,
        "cached_tokens": trace.cached_tokens,
        "verdict": verdict_of(slo, trace.group, trace.first_token_ms / 1e3, per_token_s).value,
    }


def _request(trace: RequestTrace, now_s: float) -> dict[str, Any]:
    age_s = now_s - trace.arrival_s
    return {
        "id": trace.request_id,
        "tenant": trace.tenant,
        "group": trace.group.value,
        "state": trace.state.value,
        "age_s": age_s,
        "prompt_tokens": trace.prompt_tokens,
        "cached_tokens": trace.cached_tokens,
        "output_tokens": trace.output_tokens,
        "queued_ms": trace.queued_ms,
        "dispatched_ms": trace.dispatched_ms,
        "first_token_ms": trace.first_token_ms,
        "end_ms": trace.end_ms,
        "tpot_ms": _tpot_ms(trace),
        "error": trace.error,
        "stages": [_stage(span) for span in trace.stages],
    }


def _stage(span: StageSpan) -> dict[str, Any]:
    return {
        "stage": span.stage.name.lower(),
        "instance": span.instance_id,
        "start_ms": span.start_ms,
        "end_ms": span.end_ms,
        "transport": span.transport,
    }


def _cache(name: str, pool: CacheCounters) -> dict[str, Any]:
    return {
        "instance": name,
        "pool": pool.pool.name.lower(),
        "entries": pool.entries,
        "device_bytes": pool.device_bytes,
        "device_capacity_bytes": pool.device_capacity_bytes,
        "host_bytes": pool.host_bytes,
        "lookups": pool.lookups,
        "hits": pool.hits,
        "pulled": pool.pulled,
        "saved_s": pool.saved_s,
    }
