"""Which gRPC status says which failure, whatever way the answer takes."""

from __future__ import annotations

import grpc

from kv_transfer.blocks import OutOfBlocks
from kv_transfer.errors import ChecksumMismatch, LayoutMismatch, TransferError, UnknownRequest
from kv_transfer.leases import LeaseGone
from kv_transfer.offers import NoSuchPool, TooLarge, TransferUnavailable

# First match wins.
_STATUS: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (UnknownRequest, grpc.StatusCode.NOT_FOUND),
    (LeaseGone, grpc.StatusCode.FAILED_PRECONDITION),
    (LayoutMismatch, grpc.StatusCode.FAILED_PRECONDITION),
    (NoSuchPool, grpc.StatusCode.FAILED_PRECONDITION),
    (TransferUnavailable, grpc.StatusCode.FAILED_PRECONDITION),
    (ChecksumMismatch, grpc.StatusCode.DATA_LOSS),
    (TooLarge, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (OutOfBlocks, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (TimeoutError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (TransferError, grpc.StatusCode.ABORTED),  # of what was sent in answer to a call
    (ValueError, grpc.StatusCode.INVALID_ARGUMENT),
)
KNOWN_ERRORS = tuple(kind for kind, _ in _STATUS)
_CAUSES = {grpc.StatusCode.DATA_LOSS: "CHECKSUM"}


def status_of(error: BaseException) -> grpc.StatusCode:
    """INTERNAL for what is not among the known errors."""
    return next((code for kind, code in _STATUS if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


def cause_of(code: grpc.StatusCode) -> str:
    """The cause that a TransferError carries for it."""
    return _CAUSES.get(code) or str(code.name)
