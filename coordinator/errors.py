"""What can go wrong with a request; an interceptor turns these into gRPC statuses."""

from __future__ import annotations

# Many a message repeats what the client sent. As a status it has to fit into gRPC's 8 KiB of trailers, where
# it is there several times and in longer forms.
_MAX_FIELD_BYTES = 300
_MAX_REASON_BYTES = 600


class ServiceError(Exception):
    """Base of all; `str()` is what the client reads."""

    def __init__(self, message: str) -> None:
        super().__init__(_cut(message, _MAX_FIELD_BYTES + _MAX_REASON_BYTES + 2))


class FieldError(ServiceError):
    """A field of the request is at fault.

    `field` is its path in the message: "messages[0].parts[1].image.url".
    """

    def __init__(self, field: str, reason: str) -> None:
        self.field = _cut(field, _MAX_FIELD_BYTES)
        self.reason = _cut(reason, _MAX_REASON_BYTES)
        super().__init__(f"{self.field}: {self.reason}")


class InvalidFieldError(FieldError):
    """Out of range, malformed, or asking for what could never be served."""


class NotFoundError(FieldError):
    """Names something that is not here: a model, a media item."""


class TooLargeError(FieldError):
    """Over a size limit of the door."""


class NotAllowedError(FieldError):
    """Asks for what the tenant may not have."""


class AlreadyRunningError(FieldError):
    """A request of this id is running."""


class InstanceRefusedError(FieldError):
    """A stage server does not fit this cluster."""


class CannotMigrateError(ServiceError):
    """A request was not moved, and goes on where it was."""


class CannotPlanError(ServiceError):
    """An instance cannot play, or stop to play, what was asked for."""


class CannotTryError(ServiceError):
    """A second policy set cannot be tried now in the way that was asked for."""


class OverloadedError(ServiceError):
    """A bounded queue or store is full; try again after `retry_after_s`. `quota` is the limit's name."""

    def __init__(self, reason: str, retry_after_s: float, quota: str = "") -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
        self.quota = quota


class UnavailableError(ServiceError):
    """A part of the cluster that this needs is not there, or was lost too often."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class DeadlinePassedError(ServiceError):
    """The request's own deadline passed."""


class StalledReaderError(ServiceError):
    """The client took no event for too long."""


class OutOfRangeError(FieldError):
    """Beyond what is there now, or before what is still kept."""


class TakenOverError(ServiceError):
    """Another reader goes on with this answer."""


class CancelledError(ServiceError):
    """The request was stopped by a call of its own."""


class InternalFailureError(ServiceError):
    """A stage failed in a way that trying again would not mend."""


class UnauthenticatedError(ServiceError):
    """The call does not carry the cluster token."""


class MisdirectedError(ServiceError):
    """Came by a name that the door does not have."""


class UnreadableError(ServiceError):
    """A message's bytes are not of the message's type."""


def _cut(text: str, most_bytes: int) -> str:
    """Ends in "…" where something is missing; has a UTF-8 form always."""
    data = text.encode(errors="replace")
    if len(data) <= most_bytes:
        return data.decode()
    return data[: most_bytes - 3].decode(errors="ignore") + "…"
