"""Conversions between the transfer protocol's messages and our records."""

from __future__ import annotations

from elasticmm.v1 import transfer_pb2
from kv_transfer.commits import Arrived, CommitRecord
from kv_transfer.layout import PayloadKind, PoolLayout

_KINDS = {
    PayloadKind.KV: transfer_pb2.PAYLOAD_KIND_KV,
    PayloadKind.EMBEDDING: transfer_pb2.PAYLOAD_KIND_EMBEDDING,
}
_KINDS_BACK = {number: kind for kind, number in _KINDS.items()}


def kind_to(kind: PayloadKind) -> transfer_pb2.PayloadKind.ValueType:
    return _KINDS[kind]


def kind_from(number: transfer_pb2.PayloadKind.ValueType) -> PayloadKind:
    """Raises ValueError if it is unset or unknown."""
    if number not in _KINDS_BACK:
        raise ValueError(f"kind: {number} is no kind of payload")
    return _KINDS_BACK[number]


def layout_to(layout: PoolLayout) -> transfer_pb2.PoolLayout:
    return transfer_pb2.PoolLayout(
        kind=kind_to(layout.kind),
        model_fingerprint=layout.model_fingerprint,
        dtype=layout.dtype,
        num_planes=layout.num_planes,
        block_tokens=layout.block_tokens,
        token_bytes=layout.token_bytes,
    )


def layout_from(message: transfer_pb2.PoolLayout) -> PoolLayout:
    """Raises ValueError naming a field that is unset or makes no sense."""
    try:
        return PoolLayout(
            kind=kind_from(message.kind),
            model_fingerprint=message.model_fingerprint,
            dtype=message.dtype,
            num_planes=message.num_planes,
            block_tokens=message.block_tokens,
            token_bytes=message.token_bytes,
        )
    except ValueError as error:
        raise ValueError(f"layout.{error}") from None


def commit_to(record: CommitRecord) -> transfer_pb2.CommitRequest:
    return transfer_pb2.CommitRequest(
        lease_id=record.lease_id,
        num_tokens=record.num_tokens,
        output_token_ids=record.outputs,
        written_bytes=record.written_bytes,
        block_checksums=record.checksums,
    )


def commit_from(message: transfer_pb2.CommitRequest) -> CommitRecord:
    return CommitRecord(
        lease_id=message.lease_id,
        num_tokens=message.num_tokens,
        outputs=tuple(message.output_token_ids),
        written_bytes=message.written_bytes,
        checksums=tuple(message.block_checksums),
    )


def arrived_to(arrived: Arrived) -> transfer_pb2.CommitResponse:
    return transfer_pb2.CommitResponse(
        num_tokens=arrived.num_tokens, num_planes=arrived.num_planes, num_blocks=arrived.num_blocks
    )


def arrived_from(message: transfer_pb2.CommitResponse) -> Arrived:
    return Arrived(message.num_tokens, message.num_planes, message.num_blocks)
