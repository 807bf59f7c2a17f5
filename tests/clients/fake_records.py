"""What a fake cluster shows admins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from elasticmm.v1 import admin_pb2, stage_control_pb2
from elasticmm.v1 import inference_pb2 as pb


def assignment(
    stages: list[Any], group: Any = stage_control_pb2.MODALITY_GROUP_SHARED
) -> admin_pb2.Assignment:
    return admin_pb2.Assignment(roles=stages, group=group)


def instance(
    name: str, stages: list[Any], transfers: Sequence[stage_control_pb2.TransferCounters] = ()
) -> admin_pb2.InstanceStatus:
    info = stage_control_pb2.Register(
        instance_id=name,
        roles=stages,
        group=stage_control_pb2.MODALITY_GROUP_SHARED,
        device="cpu:0",
        attention_backend="sdpa",
        total_kv_blocks=100,
        pid=4711,
    )
    load = stage_control_pb2.Load(free_kv_blocks=90, sequences_decoding=1, quarantined_blocks=7)
    return admin_pb2.InstanceStatus(info=info, load=load, uptime_s=61, requests=1, transfers=transfers)


def kv_cache() -> stage_control_pb2.CacheCounters:
    return stage_control_pb2.CacheCounters(
        pool=stage_control_pb2.CACHE_POOL_KV,
        entries=40,
        device_bytes=3 << 20,
        device_capacity_bytes=4 << 20,
        host_bytes=1 << 20,
        host_capacity_bytes=8 << 20,
        lookups=20,
        hits=75,
        hit_bytes=6 << 20,
        stored=90,
        evictions={"room": 45, "flush": 5},
        refused=2,
        saved_s=12.5,
        demoted=7,
        promoted=3,
        pulled=6,
        pulled_bytes=5 << 19,
    )


def traced(request_id: str, *, is_running: bool = False) -> admin_pb2.RequestTrace:
    """Of a picture: 100 ms to the first token, 20 for each of ten more; or still encoding it."""
    trace = admin_pb2.RequestTrace(
        request_id=request_id,
        tenant="t",
        group=stage_control_pb2.MODALITY_GROUP_MULTIMODAL,
        state="encoding" if is_running else "finished",
        age_s=1.3,
        prompt_tokens=70,
        media_tokens=64,
        media_items=1,
        num_dispatches=1,
        queued_ms=4,
        dispatched_ms=10,
        instance_ids=["e-0", "pd-0"],
    )
    if not is_running:
        spans = ((pb.STAGE_ENCODE, "e-0", 12, 50), (pb.STAGE_PREFILL, "pd-0", 60, 98))
        trace.stages.extend(
            pb.StageSpan(stage=stage, instance_id=name, start_ms=start, end_ms=end, transport="shm")
            for stage, name, start, end in (*spans, (pb.STAGE_DECODE, "pd-0", 105, 300))
        )
        trace.output_tokens, trace.cached_tokens = 11, 16
        trace.first_token_ms, trace.end_ms = 100, 300
    return trace


def sent(**fields: Any) -> stage_control_pb2.TransferCounters:
    """Three transfers of 2 MiB together to pd-0 in half a second, but for what is given."""
    usual = {"peer_instance_id": "pd-0", "transport": "shm", "committed": 3, "size_bytes": 2 << 20}
    return stage_control_pb2.TransferCounters(**{**usual, "seconds": 0.5, **fields})


def shadowed() -> admin_pb2.ShadowReport:
    """Ten dispatches, of which three differ."""
    multimodal = stage_control_pb2.MODALITY_GROUP_MULTIMODAL
    return admin_pb2.ShadowReport(
        policy="static:equal",
        watched_s=61,
        same=7,
        elsewhere=2,
        held=1,
        skipped=4,
        other_prefill=2,
        other_decode=1,
        predicted=9,
        acting_first_s=0.25,
        shadow_first_s=0.2,
        acting_changes=1,
        shadow_changes=4,
        wanted=[
            admin_pb2.WantedByBoth(
                instance_id="e-0",
                acting=assignment([pb.STAGE_ENCODE]),
                shadow=assignment([pb.STAGE_ENCODE, pb.STAGE_PREFILL], multimodal),
            )
        ],
        spent_s=0.012,
    )


def tried() -> admin_pb2.TrialReport:
    """Two arms, of which one has no instance left."""
    a = admin_pb2.TrialArm(
        arm="a", policy="emp", instance_ids=["e-0", "pd-0"], good=90, late=10, instance_s=122
    )
    b = admin_pb2.TrialArm(arm="b", policy="coupled", good=40, crossed=7, instance_s=30)
    attainment = admin_pb2.TrialMeasure(name="attainment", a=0.9, b=1.0, change=0.1, low=0.01, high=0.17)
    late = admin_pb2.TrialMeasure(name="ttft_p95_s", a=1.25)
    return admin_pb2.TrialReport(
        experiment="x", watched_s=61, share=0.5, arms=[a, b], measures=[attainment, late]
    )
