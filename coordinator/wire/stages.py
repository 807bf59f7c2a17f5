"""Stage control: reports in, commands out."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.cluster import InstanceStatus
from coordinator.errors import InvalidFieldError
from coordinator.stage_messages import (
    FailureReport,
    HeartbeatReport,
    InstanceInfo,
    InstanceLoad,
    MediaItem,
    MigrationReport,
    NeedReport,
    Report,
    StageReport,
    StepMeasure,
    StepReport,
    TokenRun,
    TransferCounters,
)
from coordinator.wire.caches import to_cache_report, to_counters
from coordinator.wire.inference import from_stage, to_finish, to_logprobs, to_stage
from core.costs import StepShape
from core.stages import ModalityGroup, Roles, Stage
from elasticmm.v1 import admin_pb2, media_store_pb2
from elasticmm.v1 import inference_pb2 as inference
from elasticmm.v1 import stage_control_pb2 as pb

_GROUPS = {
    ModalityGroup.TEXT: pb.MODALITY_GROUP_TEXT,
    ModalityGroup.MULTIMODAL: pb.MODALITY_GROUP_MULTIMODAL,
    ModalityGroup.SHARED: pb.MODALITY_GROUP_SHARED,
}
_GROUPS_BACK = {value: group for group, value in _GROUPS.items()}


def from_group(group: ModalityGroup) -> pb.ModalityGroup.ValueType:
    return _GROUPS[group]


def to_group(value: pb.ModalityGroup.ValueType) -> ModalityGroup | None:
    """None for an unspecified one."""
    return _GROUPS_BACK.get(value)


def to_info(message: pb.Register) -> InstanceInfo:
    """An unspecified group is SHARED; no roles are an empty set."""
    return InstanceInfo(
        instance_id=message.instance_id,
        epoch=message.epoch,
        roles=to_roles(message.roles),
        group=_GROUPS_BACK.get(message.group, ModalityGroup.SHARED),
        endpoint=message.endpoint,
        host_id=message.host_id,
        pid=message.pid,
        model_fingerprint=message.model_fingerprint,
        dtype=message.dtype,
        device=message.device,
        attention_backend=message.attention_backend,
        block_tokens=message.block_tokens,
        total_kv_blocks=message.total_kv_blocks,
        total_embedding_blocks=message.total_embedding_blocks,
        transports=tuple(message.transports),
        kv_bytes_per_token=message.kv_bytes_per_token,
        max_sequences=message.max_sequences,
    )


def from_info(info: InstanceInfo) -> pb.Register:
    return pb.Register(
        instance_id=info.instance_id,
        epoch=info.epoch,
        roles=from_roles(info.roles),
        group=_GROUPS[info.group],
        endpoint=info.endpoint,
        host_id=info.host_id,
        pid=info.pid,
        model_fingerprint=info.model_fingerprint,
        dtype=info.dtype,
        device=info.device,
        attention_backend=info.attention_backend,
        block_tokens=info.block_tokens,
        total_kv_blocks=info.total_kv_blocks,
        total_embedding_blocks=info.total_embedding_blocks,
        transports=info.transports,
        kv_bytes_per_token=info.kv_bytes_per_token,
        max_sequences=info.max_sequences,
    )


def to_report(message: pb.StageMessage) -> Report:  # noqa: PLR0911 (one per kind)
    """Raises InvalidFieldError for a message that is no report."""
    match message.WhichOneof("message"):
        case "heartbeat":
            return _to_heartbeat(message.heartbeat)
        case "step":
            return _to_step(message.step)
        case "stage":
            return _to_stage_report(message.stage)
        case "failure":
            return _to_failure(message.failure)
        case "migration":
            return _to_migration(message.migration)
        case "cache":
            return to_cache_report(message.cache)
        case "need":
            return NeedReport(message.need.request_id, message.need.attempt, tuple(message.need.item_indices))
        case other:
            raise InvalidFieldError("message", f"{other or 'nothing'} is no report of an attached instance")


def from_media_item(item: MediaItem) -> media_store_pb2.MediaItem:
    return media_store_pb2.MediaItem(
        digest=item.digest,
        size_bytes=item.size_bytes,
        width=item.width,
        height=item.height,
        media_type=item.media_type,
        endpoint=item.endpoint,
        segment=item.segment,
        host_id=item.host_id,
    )


def to_media_item(message: media_store_pb2.MediaItem) -> MediaItem:
    return MediaItem(
        digest=message.digest,
        size_bytes=message.size_bytes,
        width=message.width,
        height=message.height,
        media_type=message.media_type,
        endpoint=message.endpoint,
        segment=message.segment,
        host_id=message.host_id,
    )


def to_load(message: pb.Load) -> InstanceLoad:
    return InstanceLoad(
        encode_waiting=message.encode_waiting,
        encode_running=message.encode_running,
        prefill_waiting_tokens=message.prefill_waiting_tokens,
        sequences_prefilling=message.sequences_prefilling,
        sequences_decoding=message.sequences_decoding,
        free_kv_blocks=message.free_kv_blocks,
        free_embedding_blocks=message.free_embedding_blocks,
        leases=message.leases,
        quarantined_blocks=message.quarantined_blocks,
    )


def from_load(load: InstanceLoad) -> pb.Load:
    return pb.Load(
        encode_waiting=load.encode_waiting,
        encode_running=load.encode_running,
        prefill_waiting_tokens=load.prefill_waiting_tokens,
        sequences_prefilling=load.sequences_prefilling,
        sequences_decoding=load.sequences_decoding,
        free_kv_blocks=load.free_kv_blocks,
        free_embedding_blocks=load.free_embedding_blocks,
        leases=load.leases,
        quarantined_blocks=load.quarantined_blocks,
    )


def to_transfers(message: pb.TransferCounters) -> TransferCounters:
    return TransferCounters(
        peer_instance_id=message.peer_instance_id,
        transport=message.transport,
        committed=message.committed,
        aborted=message.aborted,
        in_flight=message.in_flight,
        size_bytes=message.size_bytes,
        seconds=message.seconds,
        failures=dict(message.failures),
    )


def from_transfers(counters: TransferCounters) -> pb.TransferCounters:
    return pb.TransferCounters(
        peer_instance_id=counters.peer_instance_id,
        transport=counters.transport,
        committed=counters.committed,
        aborted=counters.aborted,
        in_flight=counters.in_flight,
        size_bytes=counters.size_bytes,
        seconds=counters.seconds,
        failures=counters.failures,
    )


def from_status(status: InstanceStatus) -> admin_pb2.InstanceStatus:
    return admin_pb2.InstanceStatus(
        info=from_info(status.info),
        load=from_load(status.load),
        uptime_s=status.uptime_s,
        last_heartbeat_s=status.last_heartbeat_s,
        requests=status.num_requests,
        transfers=[from_transfers(counters) for counters in status.transfers],
    )


def _to_heartbeat(message: pb.Heartbeat) -> HeartbeatReport:
    transfers = tuple(to_transfers(counters) for counters in message.transfers)
    caches = tuple(found for each in message.caches if (found := to_counters(each)) is not None)
    return HeartbeatReport(
        to_load(message.load), to_roles(message.roles), to_group(message.group), transfers, caches
    )


def _to_step(message: pb.StepReport) -> StepReport:
    load = to_load(message.load) if message.HasField("load") else None
    measure = _to_measure(message.measure) if message.HasField("measure") else None
    return StepReport(tuple(map(_to_run, message.sequences[:])), load, measure)


def _to_measure(message: pb.StepMeasure) -> StepMeasure:
    shape = StepShape(message.new_tokens, message.attended, message.sequences, message.context_tokens)
    return StepMeasure(shape, message.seconds)


def _to_run(message: pb.SequenceTokens) -> TokenRun:
    token_ids = tuple(message.token_ids[:])  # a slice, as containers are slow to iterate
    logprobs = tuple(map(to_logprobs, message.logprobs)) if message.logprobs else ()
    if logprobs and len(logprobs) != len(token_ids):
        raise InvalidFieldError("step.sequences.logprobs", "must be one per token, or none")
    finish = to_finish(message.finish)
    return TokenRun(message.request_id, message.attempt, message.first_index, token_ids, logprobs, finish)


def _to_stage_report(message: pb.StageReport) -> StageReport:
    stage = to_stage(message.stage)
    if stage is None:
        raise InvalidFieldError("stage.stage", "is not specified")
    return StageReport(
        request_id=message.request_id,
        attempt=message.attempt,
        stage=stage,
        item_index=message.item_index,
        start_ns=message.start_ns,
        end_ns=message.end_ns,
        transport=message.transport,
        cached_tokens=message.cached_tokens,
        device_s=message.device_s,
    )


def _to_failure(message: pb.FailureReport) -> FailureReport:
    return FailureReport(
        request_id=message.request_id,
        attempt=message.attempt,
        stage=to_stage(message.stage),
        item_index=message.item_index,
        code=message.code,
        message=message.message,
        field=message.field,
    )


def _to_migration(message: pb.MigrationReport) -> MigrationReport:
    return MigrationReport(
        request_id=message.request_id,
        attempt=message.attempt,
        new_attempt=message.new_attempt,
        has_moved=message.has_moved,
        reason=message.reason,
        pause_ns=message.pause_ns,
        size_bytes=message.size_bytes,
        transport=message.transport,
    )


def to_roles(values: Iterable[inference.Stage.ValueType]) -> Roles:
    stages = (to_stage(value) for value in values)
    return frozenset(stage for stage in stages if stage is not None)


def from_roles(roles: Roles) -> list[inference.Stage.ValueType]:
    return [from_stage(stage) for stage in Stage if stage in roles]
