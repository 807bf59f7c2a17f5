"""Failures of a call, by what the caller can do about them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY = "grpc-status-details-bin"


class ElasticMMError(Exception):
    """A call failed. `code` is the gRPC status name, `message` says why.

    is_lost_call: the connection broke, or there was none; what the server did is not known.
    """

    is_lost_call = False

    def __init__(self, message: str, *, code: str = "UNKNOWN") -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class InvalidRequest(ElasticMMError):
    """The request is at fault; `field` names where ("messages[0].parts[1].image"), "" if unknown."""

    def __init__(self, message: str, *, field: str = "", code: str = "INVALID_ARGUMENT") -> None:
        super().__init__(
            f"{field}: {message}" if field and not message.startswith(field) else message, code=code
        )
        self.field = field


class Overloaded(ElasticMMError):
    """The server takes no more now; try again after `retry_after_s` seconds (None: it did not say).

    quota: which of its limits is reached, "" if it did not say.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None, quota: str = "") -> None:
        super().__init__(message, code="RESOURCE_EXHAUSTED")
        self.retry_after_s = retry_after_s
        self.quota = quota


class Unavailable(ElasticMMError):
    """The server, or the part of it that ran the request, went away."""


class NotRunning(Unavailable):
    """Nobody listens at the address."""


class DeadlineExceeded(ElasticMMError):
    """The call's timeout or the request's deadline passed."""


class Cancelled(ElasticMMError):
    """The request was cancelled."""


class AlreadyRunning(ElasticMMError):
    """A request with this id is running."""


class AccessDenied(ElasticMMError):
    """The cluster token is missing or wrong, or the tenant may not have what it asks for."""


class ServerError(ElasticMMError):
    """The server failed, or broke its promises about the stream."""


@dataclass(frozen=True, slots=True)
class ErrorDetails:
    """What google.rpc details say beyond code and message; None: there are none."""

    field: str = ""
    description: str = ""
    retry_after_s: float | None = None
    quota: str = ""


def error_from_call(error: grpc.RpcError, *, field: str = "") -> ElasticMMError:
    """The typed exception for what grpc or grpc.aio raised.

    field: what the call was about, where the server cannot know it.
    """
    code = error.code() if hasattr(error, "code") else grpc.StatusCode.UNKNOWN
    message = (error.details() if hasattr(error, "details") else None) or str(error)
    metadata = error.trailing_metadata() if hasattr(error, "trailing_metadata") else None
    details = parse_details(metadata or ())
    if details is not None and field and details.field:
        details = replace(details, field=field)
    return make_error(code, message, details or ErrorDetails(), is_lost_call=_is_loss(code, message, details))


def _is_loss(code: grpc.StatusCode, message: str, details: ErrorDetails | None) -> bool:
    """Whatever a server of ours says by itself has details."""
    return details is None and (code is grpc.StatusCode.UNAVAILABLE or "RST_STREAM" in message)


def is_lost_upload(error: ElasticMMError) -> bool:
    """Whether the gateway no longer keeps a picture that was named by its digest."""
    return isinstance(error, InvalidRequest) and error.code == "NOT_FOUND" and error.field.endswith(".digest")


def parse_details(metadata: Iterable[tuple[str, str | bytes]]) -> ErrorDetails | None:
    """Reads google.rpc.Status from trailing metadata; None where there is none."""
    raw = next((value for key, value in metadata if key == _DETAILS_KEY), None)
    if not isinstance(raw, bytes):
        return None
    status = status_pb2.Status()
    try:
        status.ParseFromString(raw)
    except DecodeError:
        return None
    bad_request, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    quota = error_details_pb2.QuotaFailure()
    retry_after_s: float | None = None
    for detail in status.details:
        detail.Unpack(bad_request)
        detail.Unpack(quota)
        if detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
    violation = next(iter(bad_request.field_violations), error_details_pb2.BadRequest.FieldViolation())
    full = next(iter(quota.violations), error_details_pb2.QuotaFailure.Violation())
    return ErrorDetails(violation.field, violation.description, retry_after_s, full.subject)


_REQUEST_FAULTS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.FAILED_PRECONDITION,
    }
)

_BY_CODE: dict[grpc.StatusCode, type[ElasticMMError]] = {
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyRunning,
    grpc.StatusCode.UNAUTHENTICATED: AccessDenied,
    grpc.StatusCode.PERMISSION_DENIED: AccessDenied,
}


# How gRPC says that there is no connection: nobody listens, or the name is of no host.
_NOBODY_THERE = ("failed to connect", "errors resolving", "resolution failed")


def make_error(
    code: grpc.StatusCode, message: str, details: ErrorDetails, *, is_lost_call: bool = False
) -> ElasticMMError:
    """Which exception a status stands for."""
    error = _error_of(code, message, details)
    error.is_lost_call = is_lost_call
    return error


def _error_of(code: grpc.StatusCode, message: str, details: ErrorDetails) -> ElasticMMError:
    """Too large a request is the request's fault, not load."""
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        if details.field or "larger than max" in message:
            return InvalidRequest(message, field=details.field or "messages", code=code.name)
        return Overloaded(message, retry_after_s=details.retry_after_s, quota=details.quota)
    if code in _REQUEST_FAULTS:
        return InvalidRequest(message, field=details.field, code=code.name)
    if code is grpc.StatusCode.UNAVAILABLE and any(each in message.lower() for each in _NOBODY_THERE):
        return NotRunning(message, code=code.name)
    return _BY_CODE.get(code, ServerError)(message, code=code.name)
