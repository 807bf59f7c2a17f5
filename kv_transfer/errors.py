"""What can go wrong in a transfer."""

from __future__ import annotations


class UnknownRequest(LookupError):
    """The receiver does not know the request (any more)."""


class LayoutMismatch(ValueError):
    """The two ends differ in something that bytes cannot bridge."""


class ChecksumMismatch(RuntimeError):
    """Bytes that arrived are not those that were sent."""


class TransferError(RuntimeError):
    """A transfer failed; the sender's own state is clean.

    `cause` is short and bounded in number (a counter's label), e.g. a gRPC code's name.
    """

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class AttachError(RuntimeError):
    """A peer's segment cannot be mapped here."""
