"""Domain exceptions as gRPC statuses with google.rpc details, and back."""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from coordinator import errors

# Sent as trailing metadata, where every gRPC library looks for google.rpc.Status.
DETAILS_KEY = "grpc-status-details-bin"

_CODES: tuple[tuple[type[errors.ServiceError], grpc.StatusCode], ...] = (
    (errors.InvalidFieldError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.NotFoundError, grpc.StatusCode.NOT_FOUND),
    (errors.TooLargeError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.NotAllowedError, grpc.StatusCode.PERMISSION_DENIED),
    (errors.AlreadyRunningError, grpc.StatusCode.ALREADY_EXISTS),
    (errors.InstanceRefusedError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.CannotMigrateError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.CannotPlanError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.CannotTryError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.MisdirectedError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.OverloadedError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.UnavailableError, grpc.StatusCode.UNAVAILABLE),
    (errors.DeadlinePassedError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (errors.StalledReaderError, grpc.StatusCode.ABORTED),
    (errors.OutOfRangeError, grpc.StatusCode.OUT_OF_RANGE),
    (errors.TakenOverError, grpc.StatusCode.ABORTED),
    (errors.CancelledError, grpc.StatusCode.CANCELLED),
    (errors.InternalFailureError, grpc.StatusCode.INTERNAL),
    (errors.UnauthenticatedError, grpc.StatusCode.UNAUTHENTICATED),
    (errors.UnreadableError, grpc.StatusCode.INVALID_ARGUMENT),
)

_FIELD_ERRORS: dict[grpc.StatusCode, type[errors.FieldError]] = {
    code: kind for kind, code in _CODES if issubclass(kind, errors.FieldError)
}
# Of several with one code the first: the others answer calls that none of our processes passes on.
_PLAIN_ERRORS: dict[grpc.StatusCode, type[errors.ServiceError]] = {
    code: kind for kind, code in reversed(_CODES) if not issubclass(kind, errors.FieldError)
}


def code_of(error: errors.ServiceError) -> grpc.StatusCode:
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return grpc.StatusCode.UNKNOWN


def details_of(error: errors.ServiceError) -> bytes:
    """A google.rpc.Status: BadRequest names the field, QuotaFailure the full limit, RetryInfo the time."""
    status = status_pb2.Status(code=code_of(error).value[0], message=str(error))
    if isinstance(error, errors.FieldError):
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.reason)
        _add(status, error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, errors.OverloadedError) and error.quota:
        full = error_details_pb2.QuotaFailure.Violation(subject=error.quota, description=str(error))
        _add(status, error_details_pb2.QuotaFailure(violations=[full]))
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(retry_after_s * 1000))
        _add(status, error_details_pb2.RetryInfo(retry_delay=delay))
    return bytes(status.SerializeToString())


def error_of(error: grpc.aio.AioRpcError) -> errors.ServiceError | None:
    """What another of our processes made this status of; None where none did, as of a lost connection."""
    if _packed(error) is None:
        return None
    violation, reason = violation_of(error), error.details() or ""
    if violation is not None:
        return _FIELD_ERRORS.get(error.code(), errors.InvalidFieldError)(*violation)
    kind = _PLAIN_ERRORS.get(error.code(), errors.InternalFailureError)
    if kind is errors.OverloadedError:
        return errors.OverloadedError(reason, _retry_after_s(error) or 0.0, quota_of(error))
    if kind is errors.UnavailableError:
        return errors.UnavailableError(reason, _retry_after_s(error))
    return kind(reason)


def violation_of(error: grpc.aio.AioRpcError) -> tuple[str, str] | None:
    """The (field, description) that a status of another of our processes names."""
    for detail in _details(error):
        bad_request = error_details_pb2.BadRequest()
        if detail.Unpack(bad_request) and bad_request.field_violations:
            violation = bad_request.field_violations[0]
            return violation.field, violation.description
    return None


def quota_of(error: grpc.aio.AioRpcError) -> str:
    """The limit that a status of another of our processes names; empty if none."""
    for detail in _details(error):
        failure = error_details_pb2.QuotaFailure()
        if detail.Unpack(failure) and failure.violations:
            return str(failure.violations[0].subject)
    return ""


def _retry_after_s(error: grpc.aio.AioRpcError) -> float | None:
    for detail in _details(error):
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(retry):
            return float(retry.retry_delay.ToMilliseconds()) / 1000
    return None


def _details(error: grpc.aio.AioRpcError) -> tuple[any_pb2.Any, ...]:
    packed = _packed(error)
    return () if packed is None else tuple(status_pb2.Status.FromString(packed).details)


def _packed(error: grpc.aio.AioRpcError) -> bytes | None:
    metadata = error.trailing_metadata() or ()
    return next((value for key, value in metadata if key == DETAILS_KEY), None)


def _add(status: status_pb2.Status, detail: Message) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)
