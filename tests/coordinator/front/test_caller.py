"""What is passed on of an HTTP caller."""

from __future__ import annotations

import pytest

from coordinator.front.caller import proof_of, trace_of
from coordinator.tracing.parent import TraceParent


def test_a_key_is_passed_on_as_it_came() -> None:
    assert proof_of("bearer  x y ") == (("authorization", "bearer  x y "),)


@pytest.mark.parametrize("header", [None, "", "Bearer \xe4", "Bearer a\tb", "\x7f"])
def test_what_metadata_cannot_hold_proves_nothing(header: str | None) -> None:
    assert proof_of(header) == ()


def test_traces() -> None:
    assert trace_of(None) == ()
    assert trace_of(TraceParent("00-a", "b=1")) == (("traceparent", "00-a"), ("tracestate", "b=1"))
    assert trace_of(TraceParent("00-a", "\xe4")) == (("traceparent", "00-a"),)
