"""What a trace says of a request, and that it joins the client's."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.trace import SpanKind, StatusCode

from coordinator.observer import RequestEnd
from coordinator.tracing.parent import TraceParent
from coordinator.tracing.traces import RequestTraces
from core.lifecycle import RequestState
from tests.coordinator.ends import make_end

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
MS = 10**6

Traced = Callable[[RequestEnd], dict[str, ReadableSpan]]


@pytest.fixture
def traced() -> Traced:
    """The spans of one request, by name."""

    def trace(end: RequestEnd) -> dict[str, ReadableSpan]:
        exporter = InMemorySpanExporter()
        traces = RequestTraces(exporter, "demo", "1.0")
        traces.on_end(end)
        traces.close()
        return {span.name: span for span in exporter.get_finished_spans()}

    return trace


def test_stages_lie_within_the_request_at_their_times(traced: Traced) -> None:
    spans = traced(make_end(arrival_ns=10**18))
    root = spans.pop("chat demo")
    assert (root.kind, root.start_time, root.end_time) == (SpanKind.SERVER, 10**18, 10**18 + 900 * MS)
    assert root.parent is None
    assert root.status.status_code is StatusCode.UNSET
    assert {
        name: ((span.start_time - 10**18) // MS, (span.end_time - 10**18) // MS)
        for name, span in spans.items()
    } == {"queue": (0, 100), "prefill": (100, 500), "decode": (500, 900)}
    assert {span.parent.span_id for span in spans.values()} == {root.context.span_id}
    assert spans["decode"].attributes == {"elasticmm.instance_id": "d0"}
    (event,) = root.events
    assert (event.name, event.timestamp) == ("first token", 10**18 + 500 * MS)


def names_in_force() -> set[str]:
    """Of the conventions for generative AI, without those that were renamed or given up."""
    written = re.findall(
        r'^GEN_AI_\w+: Final = "(.+)"\n"""\n(.*)', inspect.getsource(gen_ai_attributes), re.M
    )
    names = {name for name, words in written if not re.match(r"Deprecated: Re(placed|moved)", words)}
    assert "gen_ai.operation.name" in names
    assert "gen_ai.system" not in names
    return names


def test_attributes_follow_the_conventions(traced: Traced) -> None:
    attributes = traced(make_end(tenant="acme"))["chat demo"].attributes
    assert attributes is not None
    assert attributes["gen_ai.usage.output_tokens"] == 5
    assert attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert attributes["gen_ai.usage.cache_read.input_tokens"] == 4
    assert attributes["elasticmm.tenant"] == "acme"
    assert "error.type" not in attributes
    ours = {name for name in attributes if name.startswith("gen_ai.")}
    assert {"gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model"} <= ours
    assert ours <= names_in_force()


def test_joins_the_clients_trace(traced: Traced) -> None:
    spans = traced(make_end(trace=TraceParent(f"00-{TRACE}-{PARENT}-01", "vendor=1")))
    assert {f"{span.context.trace_id:032x}" for span in spans.values()} == {TRACE}
    root = spans["chat demo"]
    assert root.parent is not None
    assert f"{root.parent.span_id:016x}" == PARENT
    assert root.context.trace_state.get("vendor") == "1"


def test_what_the_client_does_not_sample_is_not_exported(traced: Traced) -> None:
    assert traced(make_end(trace=TraceParent(f"00-{TRACE}-{PARENT}-00"))) == {}


def test_a_malformed_parent_is_none(traced: Traced) -> None:
    assert traced(make_end(trace=TraceParent("nonsense")))["chat demo"].parent is None


def test_what_failed_says_why(traced: Traced) -> None:
    end = make_end(state=RequestState.FAILED, finish=None, first_token_s=None, error="p0: out of blocks")
    root = traced(end)["chat demo"]
    assert (root.status.status_code, root.status.description) == (StatusCode.ERROR, "p0: out of blocks")
    assert root.attributes is not None
    assert root.attributes["error.type"] == "failed"
    assert not root.events
