"""Makes a trace of every accepted request once it has ended, from the times that are known by then.

So nothing is done while it runs, and stage servers know nothing of it. Needs the extra elasticmm[tracing].
"""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from coordinator.events import StageSpan
from coordinator.observer import CallEnd, RequestEnd
from core.lifecycle import RequestState

_SERVICE = "elasticmm"
_EXPORT_TIMEOUT_S = 2.0
_MAX_QUEUED = 4096  # spans; more are dropped. They leave in one batch, so that an end takes one time-out.

Attributes = dict[str, str | int | bool | tuple[str, ...]]


class RequestTraces:
    """A RequestObserver. OTEL_TRACES_SAMPLER says which are kept; else all that clients do not leave out."""

    def __init__(self, exporter: SpanExporter, model: str, version: str) -> None:
        """Starts a thread that exports."""
        resource = Resource.create({"service.name": _SERVICE, "service.version": version})
        self._model = model
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(exporter, max_queue_size=_MAX_QUEUED, max_export_batch_size=_MAX_QUEUED)
        )
        self._tracer = self._provider.get_tracer("elasticmm", version)
        self._propagator = TraceContextTextMapPropagator()

    def on_end(self, end: RequestEnd) -> None:
        headers = {} if end.trace is None else end.trace.headers()
        parent = self._propagator.extract(headers, Context())
        root = self._tracer.start_span(
            f"chat {self._model}",
            parent,
            SpanKind.SERVER,
            _attributes(end, self._model),
            start_time=end.arrival_ns,
        )
        inside = set_span_in_context(root, parent)
        if end.queued_s is not None:
            queue = self._tracer.start_span("queue", inside, start_time=end.arrival_ns)
            queue.end(_at_ns(end, end.queued_s * 1e3))
        for span in end.spans:
            self._add_stage(span, inside, end)
        _note_outcome(root, end)
        root.end(_at_ns(end, end.took_s * 1e3))

    def on_unserved(self, call: CallEnd) -> None:
        """A call that was refused has no times to show; one that was accepted has its trace by `on_end`."""

    def close(self) -> None:
        """Exports what is left, and ends the thread. Blocks for a few seconds where nobody takes it."""
        self._provider.shutdown()

    def _add_stage(self, stage: StageSpan, inside: Context, end: RequestEnd) -> None:
        span = self._tracer.start_span(
            stage.stage.name.lower(),
            inside,
            attributes=_stage_attributes(stage),
            start_time=_at_ns(end, stage.start_ms),
        )
        span.end(_at_ns(end, stage.end_ms))


def make_exporter(endpoint: str) -> SpanExporter:
    """Over gRPC to an OTLP collector: "http://HOST:4317", or https."""
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_TIMEOUT_S)


def _at_ns(end: RequestEnd, since_arrival_ms: float) -> int:
    return end.arrival_ns + round(since_arrival_ms * 1e6)


def _attributes(end: RequestEnd, model: str) -> Attributes:
    attributes: Attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": _SERVICE,
        "gen_ai.request.model": model,
        "gen_ai.response.model": model,
        "gen_ai.response.id": end.request_id,
        "gen_ai.usage.input_tokens": end.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": end.usage.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": end.usage.cached_tokens,
        "elasticmm.tenant": end.tenant,
        "elasticmm.modality": end.group.value,
        "elasticmm.priority": end.priority,
        "elasticmm.media_tokens": end.usage.media_tokens,
        "elasticmm.dispatches": end.num_dispatches,
        "elasticmm.moves": end.num_moves,
    }
    if end.finish is not None:
        attributes["gen_ai.response.finish_reasons"] = (end.finish.value,)
    return attributes


def _stage_attributes(span: StageSpan) -> dict[str, str]:
    attributes = {"elasticmm.instance_id": span.instance_id}
    return attributes | {"elasticmm.transport": span.transport} if span.transport else attributes


def _note_outcome(root: Span, end: RequestEnd) -> None:
    if end.first_token_s is not None:
        root.add_event("first token", timestamp=_at_ns(end, end.first_token_s * 1e3))
    if end.state is not RequestState.FINISHED:
        root.set_attribute("error.type", end.state.value)
        root.set_status(Status(StatusCode.ERROR, end.error or end.state.value))
