"""A request over three processes is one trace at an OpenTelemetry collector, whichever door it came by."""

from __future__ import annotations

import time
from collections.abc import Callable

import grpc
import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from elasticmm.v1 import inference_pb2_grpc
from elasticmm.v1.inference_pb2 import ImagePart, StopConditions
from tests.coordinator.conftest import ask_for, picture
from tests.integration.asking import make_questions
from tests.integration.running import Running
from tests.integration.test_openai import messages_of
from tests.otlp import Collector, attributes_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

CALLER = "00f067aa0ba902b7"  # the client's own span
WHERE = {"encode": "e-0", "prefill": "p-0", "decode": "d-0"}


def by_grpc(running: Running, parent: str) -> None:
    with grpc.insecure_channel(running.address) as channel:
        images = tuple(ImagePart(data=picture(size=size)) for size in ((64, 48), (48, 64)))
        asked = ask_for(images=images, max_tokens=5, stop=StopConditions(ignore_eos=True))
        stub = inference_pb2_grpc.InferenceStub(channel)
        assert list(stub.Generate(asked, metadata=(("traceparent", parent),)))


def by_http(running: Running, parent: str) -> None:
    *_, asked = make_questions(7, 3)
    body = {"model": "checkpoint", "messages": messages_of(asked), "max_tokens": 5, "ignore_eos": True}
    answer = httpx.post(
        f"{running.http}/v1/chat/completions", json=body, headers={"traceparent": parent}, timeout=60
    )
    assert answer.status_code == 200, answer.text


def trace(
    running: Running, collector: Collector, ask: Callable[[Running, str], None], id_: str
) -> list[Span]:
    """All spans of one request, which come together, some seconds after it."""
    ask(running, f"00-{id_}-{CALLER}-01")
    end_s = time.monotonic() + 60
    while not collector.of(id_):
        assert time.monotonic() < end_s, "no trace came"
        time.sleep(0.1)
    return collector.of(id_)


@pytest.mark.parametrize(("ask", "id_"), [(by_grpc, "a" * 32), (by_http, "b" * 32)])
def test_one_trace_with_all_stages_where_they_ran(
    running: Running, collector: Collector, ask: Callable[[Running, str], None], id_: str
) -> None:
    root, *others = sorted(
        trace(running, collector, ask, id_), key=lambda span: span.parent_span_id.hex() != CALLER
    )
    assert (root.name, root.kind, root.parent_span_id.hex()) == (
        "chat checkpoint",
        Span.SPAN_KIND_SERVER,
        CALLER,
    )
    assert root.status.code == Status.STATUS_CODE_UNSET
    assert [event.name for event in root.events] == ["first token"]
    assert {span.parent_span_id for span in others} == {root.span_id}
    assert sorted(span.name for span in others) == ["decode", "encode", "encode", "prefill", "queue"]
    for span in others:
        assert root.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        where = attributes_of(span.attributes).get("elasticmm.instance_id")
        assert where == WHERE.get(span.name)


def test_the_request_says_what_the_conventions_ask_for(running: Running, collector: Collector) -> None:
    (root,) = (
        span for span in trace(running, collector, by_grpc, "c" * 32) if span.name == "chat checkpoint"
    )
    attributes = attributes_of(root.attributes)
    assert attributes["gen_ai.provider.name"] == "elasticmm"
    assert attributes["gen_ai.request.model"] == attributes["gen_ai.response.model"] == "checkpoint"
    assert attributes["gen_ai.usage.output_tokens"] == 5
    assert attributes["gen_ai.response.finish_reasons"] == ["length"]
    assert attributes["elasticmm.modality"] == "multimodal"
    assert {attributes_of(each.attributes)["service.name"] for each in collector.resources} == {"elasticmm"}
