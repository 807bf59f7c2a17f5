"""Each domain error has its status, and says which field or when."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from coordinator import errors
from coordinator.wire.status import DETAILS_KEY, code_of, details_of, error_of, quota_of, violation_of
from tests.coordinator.conftest import failure_of

CODES = grpc.StatusCode
CASES = [
    (errors.InvalidFieldError("f", "bad"), CODES.INVALID_ARGUMENT, "f", None),
    (errors.NotFoundError("model", "no"), CODES.NOT_FOUND, "model", None),
    (errors.TooLargeError("messages", "big"), CODES.RESOURCE_EXHAUSTED, "messages", None),
    (errors.NotAllowedError("cache_scope", "no"), CODES.PERMISSION_DENIED, "cache_scope", None),
    (errors.AlreadyRunningError("request_id", "twice"), CODES.ALREADY_EXISTS, "request_id", None),
    (errors.InstanceRefusedError("register.dtype", "x"), CODES.FAILED_PRECONDITION, "register.dtype", None),
    (errors.CannotMigrateError("no room"), CODES.FAILED_PRECONDITION, None, None),
    (errors.CannotPlanError("nobody"), CODES.FAILED_PRECONDITION, None, None),
    (errors.CannotTryError("one runs"), CODES.FAILED_PRECONDITION, None, None),
    (errors.MisdirectedError("not known as x"), CODES.FAILED_PRECONDITION, None, None),
    (errors.OverloadedError("full", 1.5), CODES.RESOURCE_EXHAUSTED, None, 1.5),
    (errors.UnavailableError("gone"), CODES.UNAVAILABLE, None, None),
    (errors.UnavailableError("soon", 0.25), CODES.UNAVAILABLE, None, 0.25),
    (errors.DeadlinePassedError("late"), CODES.DEADLINE_EXCEEDED, None, None),
    (errors.StalledReaderError("slow"), CODES.ABORTED, None, None),
    (errors.OutOfRangeError("next_index", "far"), CODES.OUT_OF_RANGE, "next_index", None),
    (errors.TakenOverError("another"), CODES.ABORTED, None, None),
    (errors.CancelledError("stopped"), CODES.CANCELLED, None, None),
    (errors.InternalFailureError("broken"), CODES.INTERNAL, None, None),
    (errors.UnauthenticatedError("who"), CODES.UNAUTHENTICATED, None, None),
    (errors.UnreadableError("noise"), CODES.INVALID_ARGUMENT, None, None),
]


def rpc_error(error: errors.ServiceError) -> grpc.aio.AioRpcError:
    metadata = grpc.aio.Metadata((DETAILS_KEY, details_of(error)))
    return grpc.aio.AioRpcError(code_of(error), grpc.aio.Metadata(), metadata, str(error))


@pytest.mark.parametrize(("error", "code", "field", "retry_after_s"), CASES)
def test_statuses(
    error: errors.ServiceError, code: grpc.StatusCode, field: str | None, retry_after_s: float | None
) -> None:
    failure = failure_of(rpc_error(error))
    assert (failure.code, failure.field, failure.retry_after_s) == (code, field, retry_after_s)


# Their codes are those of errors that come first.
SHADOWED = (errors.CannotPlanError, errors.CannotTryError, errors.MisdirectedError, errors.TakenOverError)


@pytest.mark.parametrize("error", [error for error, *_ in CASES if not isinstance(error, SHADOWED)])
def test_errors_come_back(error: errors.ServiceError) -> None:
    back = error_of(rpc_error(error))
    assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))


def test_a_status_that_no_server_of_ours_made() -> None:
    lost = grpc.aio.AioRpcError(CODES.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "gone")
    assert error_of(lost) is None


def test_violations_come_back() -> None:
    assert violation_of(rpc_error(errors.InvalidFieldError("url", "is private"))) == ("url", "is private")
    assert violation_of(rpc_error(errors.OverloadedError("full", 1.0))) is None


def test_a_full_quota_is_named() -> None:
    error = errors.OverloadedError("full", 1.0, "max_waiting")
    failure = error_details_pb2.QuotaFailure()
    assert any(detail.Unpack(failure) for detail in status_pb2.Status.FromString(details_of(error)).details)
    assert [(each.subject, each.description) for each in failure.violations] == [("max_waiting", "full")]
    assert failure_of(rpc_error(error)).retry_after_s == 1.0
    assert quota_of(rpc_error(error)) == "max_waiting"
    assert quota_of(rpc_error(errors.OverloadedError("full", 1.0))) == ""


def test_every_error_has_a_code_of_its_own() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    leaves = [kind for kind in kinds if issubclass(kind, errors.ServiceError) and not kind.__subclasses__()]
    assert {type(error) for error, *_ in CASES} == set(leaves)


@pytest.mark.parametrize("letter", ["x", "\u20ac", "\ud800"])
def test_what_is_repeated_fits_into_trailers(letter: str) -> None:
    """gRPC takes 8 KiB: the message is percent-encoded there, the details are in base64."""
    error = errors.InvalidFieldError(letter * 5000, letter * 50_000)
    assert 3 * len(str(error).encode()) + len(details_of(error)) * 4 // 3 < 8000
    assert error.reason.endswith("\u2026")
