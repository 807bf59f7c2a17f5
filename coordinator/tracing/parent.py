"""The trace that a client's call is part of, as W3C Trace Context has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

PARENT_HEADER, STATE_HEADER = "traceparent", "tracestate"
_MAX_CHARS = 512  # of each: the standard asks for no more


@dataclass(frozen=True, slots=True)
class TraceParent:
    """Both headers as they came, unchecked."""

    parent: str
    state: str = ""

    def headers(self) -> Mapping[str, str]:
        return {PARENT_HEADER: self.parent, STATE_HEADER: self.state}


def trace_parent(headers: Iterable[tuple[str, str | bytes]]) -> TraceParent | None:
    """From a call's metadata, or HTTP's headers with names in small letters; None where they name none."""
    found = {
        name: value[:_MAX_CHARS]
        for name, value in headers
        if name in (PARENT_HEADER, STATE_HEADER) and isinstance(value, str)
    }
    if PARENT_HEADER not in found:
        return None
    return TraceParent(found[PARENT_HEADER], found.get(STATE_HEADER, ""))
