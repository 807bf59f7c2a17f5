"""Conversions between the transfer protocol's messages and our records."""

from __future__ import annotations

from elasticmm.v1 import transfer_pb2
from kv_transfer.commits import Arrived, CommitRecord
from kv_transfer.layout import MemoryOrder, PayloadKind, PoolLayout
from kv_transfer.prefixes import KEY_BYTES, PrefixRequest, PushedPrefix
from kv_transfer.transports.base import PeerAddress

_KINDS = {
    PayloadKind.KV: transfer_pb2.PAYLOAD_KIND_KV,
    PayloadKind.EMBEDDING: transfer_pb2.PAYLOAD_KIND_EMBEDDING,
}
_KINDS_BACK = {number: kind for kind, number in _KINDS.items()}
_ORDERS = {
    MemoryOrder.PLANE_BLOCK_TOKEN_HEAD: transfer_pb2.MEMORY_ORDER_PLANE_BLOCK_TOKEN_HEAD,
    MemoryOrder.PLANE_BLOCK_HEAD_TOKEN: transfer_pb2.MEMORY_ORDER_PLANE_BLOCK_HEAD_TOKEN,
    MemoryOrder.BLOCK_PLANE_TOKEN_HEAD: transfer_pb2.MEMORY_ORDER_BLOCK_PLANE_TOKEN_HEAD,
    MemoryOrder.BLOCK_PLANE_HEAD_TOKEN: transfer_pb2.MEMORY_ORDER_BLOCK_PLANE_HEAD_TOKEN,
}
_ORDERS_BACK = {number: order for order, number in _ORDERS.items()}


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
        first_head=layout.first_head,
        num_heads=layout.num_heads,
        total_heads=layout.total_heads,
        order=_ORDERS[layout.order],
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
            first_head=message.first_head,
            num_heads=message.num_heads,
            total_heads=message.total_heads,
            order=_order_from(message.order),
        )
    except ValueError as error:
        raise ValueError(f"layout.{error}") from None


def _order_from(number: transfer_pb2.MemoryOrder.ValueType) -> MemoryOrder:
    if number not in _ORDERS_BACK:
        raise ValueError(f"order: {number} is no order of memory")
    return _ORDERS_BACK[number]


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


def pull_to(request: PrefixRequest) -> transfer_pb2.PullPrefixRequest:
    return transfer_pb2.PullPrefixRequest(
        request_id=request.key[0],
        attempt=request.key[1],
        keys=b"".join(request.block_keys),
        first_token=request.first_token,
        block_tokens=request.block_tokens,
        model_fingerprint=request.model_fingerprint,
        instance_id=request.asker.instance_id,
        endpoint=request.asker.endpoint,
        host_id=request.asker.host_id,
        epoch=request.asker.epoch,
        holder_epoch=request.holder_epoch,
    )


def pull_from(message: transfer_pb2.PullPrefixRequest) -> PrefixRequest:
    """Raises ValueError naming a field that is unset or makes no sense."""
    for name in ("request_id", "keys", "block_tokens", "endpoint"):
        if not getattr(message, name):
            raise ValueError(f"{name}: is missing")
    if len(message.keys) % KEY_BYTES:
        raise ValueError(f"keys: {len(message.keys)} bytes are not whole keys of {KEY_BYTES}")
    starts = range(0, len(message.keys), KEY_BYTES)
    return PrefixRequest(
        key=(message.request_id, message.attempt),
        block_keys=tuple(message.keys[start : start + KEY_BYTES] for start in starts),
        first_token=message.first_token,
        block_tokens=message.block_tokens,
        model_fingerprint=message.model_fingerprint,
        asker=PeerAddress(message.instance_id, message.endpoint, message.host_id, message.epoch),
        holder_epoch=message.holder_epoch,
    )


def pushed_to(pushed: PushedPrefix) -> transfer_pb2.PullPrefixResponse:
    return transfer_pb2.PullPrefixResponse(num_tokens=pushed.num_tokens, transport=pushed.transport)


def pushed_from(message: transfer_pb2.PullPrefixResponse) -> PushedPrefix:
    return PushedPrefix(message.num_tokens, message.transport)
