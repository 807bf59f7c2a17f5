from coordinator.tracing.parent import TraceParent, trace_parent


def test_takes_its_two_headers_and_no_more() -> None:
    found = trace_parent([("traceparent", "00-a"), ("tracestate", "x=1"), ("other", "1")])
    assert found == TraceParent("00-a", "x=1")
    assert found.headers() == {"traceparent": "00-a", "tracestate": "x=1"}


def test_none_is_none() -> None:
    assert trace_parent([("traceparent-bin", b"x"), ("tracestate", "x=1")]) is None


def test_long_ones_are_cut() -> None:
    found = trace_parent([("traceparent", "00-a"), ("tracestate", "x" * 10_000)])
    assert found == TraceParent("00-a", "x" * 512)
