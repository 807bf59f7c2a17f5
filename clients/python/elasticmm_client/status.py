"""A cluster as its coordinator sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from elasticmm.v1 import admin_pb2, stage_control_pb2
from elasticmm_client.roles import GROUPS, STAGES


@dataclass(frozen=True, slots=True)
class TransferStatus:
    """What an instance sent to one peer over one transport, since it was started."""

    peer: str  # id of the receiving instance
    transport: str  # "" for what failed before one was chosen
    committed: int
    aborted: int
    in_flight: int
    size_bytes: int  # of committed transfers
    seconds: float  # that these were open, summed; a prefill that feeds one is within
    failures: Mapping[str, int]  # by cause


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """One stage server, by its last heartbeat."""

    id: str
    group: str  # "text", "multimodal" or "shared"
    roles: tuple[str, ...]  # of "encode", "prefill", "decode"
    device: str
    attention_backend: str
    dtype: str
    endpoint: str
    host_id: str
    pid: int
    model_fingerprint: str
    transports: tuple[str, ...]
    uptime_s: float
    last_heartbeat_s: float  # seconds ago
    requests: int  # dispatched here and not finished
    encode_waiting: int
    encode_running: int
    prefill_waiting_tokens: int
    sequences_prefilling: int
    sequences_decoding: int
    leases: int
    quarantined_blocks: int  # of ended leases, not free yet since they may still be written to
    block_tokens: int
    free_kv_blocks: int
    total_kv_blocks: int
    free_embedding_blocks: int
    total_embedding_blocks: int
    max_sequences: int  # of one decode batch; 0: not told
    transfers: tuple[TransferStatus, ...]


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """The cluster: requests, and its instances in order of their ids."""

    model: str
    version: str
    topology: str
    uptime_s: float
    requests_waiting: int
    requests_running: int
    requests_finished: int
    requests_failed: int
    instances_missing: int  # that the topology still waits for
    instances: tuple[InstanceStatus, ...]

    @property
    def is_ready(self) -> bool:
        """Whether every instance of the topology has registered."""
        return bool(self.instances) and self.instances_missing == 0


def status_from_proto(message: admin_pb2.GetStatusResponse) -> ClusterStatus:
    instances = sorted((_instance(each) for each in message.instances), key=lambda each: each.id)
    return ClusterStatus(
        model=message.model,
        version=message.version,
        topology=message.topology,
        uptime_s=message.uptime_s,
        requests_waiting=message.requests_waiting,
        requests_running=message.requests_running,
        requests_finished=message.requests_finished,
        requests_failed=message.requests_failed,
        instances_missing=message.instances_missing,
        instances=tuple(instances),
    )


def _instance(message: admin_pb2.InstanceStatus) -> InstanceStatus:
    info, load = message.info, message.load
    return InstanceStatus(
        id=info.instance_id,
        group=GROUPS.get(info.group, "shared"),
        roles=tuple(name for stage, name in STAGES.items() if stage in info.roles),
        device=info.device,
        attention_backend=info.attention_backend,
        dtype=info.dtype,
        endpoint=info.endpoint,
        host_id=info.host_id,
        pid=info.pid,
        model_fingerprint=info.model_fingerprint,
        transports=tuple(info.transports),
        uptime_s=message.uptime_s,
        last_heartbeat_s=message.last_heartbeat_s,
        requests=message.requests,
        encode_waiting=load.encode_waiting,
        encode_running=load.encode_running,
        prefill_waiting_tokens=load.prefill_waiting_tokens,
        sequences_prefilling=load.sequences_prefilling,
        sequences_decoding=load.sequences_decoding,
        leases=load.leases,
        quarantined_blocks=load.quarantined_blocks,
        block_tokens=info.block_tokens,
        free_kv_blocks=load.free_kv_blocks,
        total_kv_blocks=info.total_kv_blocks,
        free_embedding_blocks=load.free_embedding_blocks,
        total_embedding_blocks=info.total_embedding_blocks,
        max_sequences=info.max_sequences,
        transfers=tuple(_transfer(each) for each in message.transfers),
    )


def _transfer(message: stage_control_pb2.TransferCounters) -> TransferStatus:
    return TransferStatus(
        peer=message.peer_instance_id,
        transport=message.transport,
        committed=message.committed,
        aborted=message.aborted,
        in_flight=message.in_flight,
        size_bytes=message.size_bytes,
        seconds=message.seconds,
        failures=dict(message.failures),
    )
