"""What a receiver answered, as the sender's transports need it."""

from __future__ import annotations

import json

from elasticmm.v1 import transfer_pb2
from kv_transfer.errors import TransferError
from kv_transfer.layout import PoolLayout
from kv_transfer.transports.acceptor import TransportInfo
from kv_transfer.transports.base import Grant, LeaseDeadline
from kv_transfer.wire import layout_from


def grant_from(response: transfer_pb2.OpenResponse, deadline: LeaseDeadline) -> Grant:
    """Raises TransferError."""
    return Grant(
        lease_id=response.lease_id,
        transport=response.transport,
        block_ids=tuple(response.block_ids),
        info=_info_from(response.transport_info),
        deadline=deadline,
        layout=_layout_from(response.layout),
        wants_checksums=response.wants_checksums,
    )


def _info_from(data: bytes) -> TransportInfo:
    """Raises TransferError if it is no JSON object."""
    try:
        info = json.loads(data or b"{}")
    except ValueError as error:
        raise TransferError("PROTOCOL", f"transport_info: {error}") from error
    if not isinstance(info, dict):
        raise TransferError("PROTOCOL", "transport_info: is no JSON object")
    return info


def _layout_from(message: transfer_pb2.PoolLayout) -> PoolLayout:
    """Raises TransferError if it is unset or makes no sense."""
    try:
        return layout_from(message)
    except ValueError as error:
        raise TransferError("PROTOCOL", str(error)) from error
