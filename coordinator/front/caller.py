"""What an HTTP caller proves itself by and is traced by, as metadata of calls on its behalf."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.tracing.parent import TraceParent
from core.access import METADATA_KEY

Metadata = tuple[tuple[str, str], ...]


def proof_of(authorization: str | None) -> Metadata:
    """Empty without a header, and for one that no key could be in."""
    return _sendable(((METADATA_KEY, authorization or ""),))


def trace_of(trace: TraceParent | None) -> Metadata:
    return () if trace is None else _sendable(trace.headers().items())


def _sendable(pairs: Iterable[tuple[str, str]]) -> Metadata:
    """Those that gRPC takes: printable ASCII."""
    return tuple(
        (name, value) for name, value in pairs if value and all(" " <= each <= "~" for each in value)
    )
