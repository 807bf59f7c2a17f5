"""What a failed call to the coordinator means to the caller in front."""

from __future__ import annotations

import logging

import grpc

from coordinator.errors import InternalFailureError, ServiceError, TooLargeError, UnavailableError
from coordinator.wire.status import error_of

log = logging.getLogger(__name__)

RETRY_AFTER_S = 1.0
_LOSSES = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)


def translated(error: grpc.aio.AioRpcError) -> ServiceError:
    """The coordinator's own error; where gRPC speaks for it, what has become of it.

    gRPC's words name addresses, so they go to the log only.
    """
    own = error_of(error)
    if own is not None:
        return own
    code, reason = error.code(), error.details() or ""
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in reason:
        return TooLargeError("messages", "more than the coordinator takes in one message")
    if code in _LOSSES or "RST_STREAM" in reason:
        log.debug("the coordinator does not answer: %s", reason)
        return UnavailableError("the coordinator does not answer", RETRY_AFTER_S)
    return InternalFailureError(reason)
