"""What went wrong, in OpenAI's shape: an HTTP status and {"error": {message, type, param, code}}."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from coordinator import errors
from coordinator.openai.params import Param


@dataclass(frozen=True, slots=True)
class Fault:
    """An error as a client reads it; `param` names a field of its JSON."""

    status: int
    message: str
    kind: str
    param: str | None = None
    code: str | None = None
    retry_after_s: float | None = None

    @property
    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        headers = {}
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        if self.retry_after_s is not None:
            headers["retry-after"] = str(max(1, math.ceil(self.retry_after_s)))
        if self.status in (408, 413):  # there may be more of the body on its way
            headers["connection"] = "close"
        return headers


class BadRequestError(Exception):
    """What this door itself refuses: the form of the JSON, not what checks.py checks."""

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, status: int = 400
    ) -> None:
        super().__init__(message)
        self.fault = Fault(status, message, "invalid_request_error", param, code)


# Status, type and code by kind of error.
_FAULTS: tuple[tuple[type[errors.ServiceError], int, str, str | None], ...] = (
    (errors.InvalidFieldError, 400, "invalid_request_error", None),
    (errors.NotFoundError, 404, "invalid_request_error", "not_found"),
    (errors.TooLargeError, 413, "invalid_request_error", "too_large"),
    (errors.NotAllowedError, 403, "permission_error", "not_allowed"),
    (errors.AlreadyRunningError, 409, "invalid_request_error", "already_running"),
    (errors.MisdirectedError, 421, "invalid_request_error", "host_not_allowed"),
    (errors.UnauthenticatedError, 401, "authentication_error", "unauthenticated"),
    (errors.OverloadedError, 429, "rate_limit_error", "overloaded"),
    (errors.UnavailableError, 503, "service_unavailable_error", "unavailable"),
    (errors.DeadlinePassedError, 504, "timeout_error", "deadline_passed"),
)


def fault_of(error: errors.ServiceError, param: Param) -> Fault:
    """`param` turns a field's path into the one of the client's JSON."""
    status, kind, code = _kind_of(error)
    retry_after_s = getattr(error, "retry_after_s", None)
    if not isinstance(error, errors.FieldError):
        return Fault(status, str(error), kind, None, code, retry_after_s)
    name = param(error.field)
    if isinstance(error, errors.NotFoundError) and error.field == "model":
        code = "model_not_found"
    return Fault(status, f"{name}: {error.reason}", kind, name, code, retry_after_s)


def _kind_of(error: errors.ServiceError) -> tuple[int, str, str | None]:
    for each, status, kind, code in _FAULTS:
        if isinstance(error, each):
            return status, kind, code
    return 500, "server_error", "internal"
