"""From a client's metadata to an OTLP collector."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from coordinator.config import CoordinatorConfig
from coordinator.server import Coordinator
from tests.coordinator.conftest import CHECKPOINT, MakeBench, ask_for
from tests.otlp import Collector, collecting

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as started:
        yield started


async def test_a_request_over_all_stages_in_the_clients_trace(
    make_bench: MakeBench, collector: Collector
) -> None:
    bench = await make_bench("e", "p", "d", otlp_endpoint=collector.endpoint)
    call = bench.inference.Generate(
        ask_for(max_tokens=3), metadata=(("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01"),)
    )
    assert [event async for event in call]
    await bench.coordinator.watch.stop()
    assert sorted(span.name for span in collector.spans) == ["chat checkpoint", "decode", "prefill", "queue"]
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}


async def test_a_collector_that_is_not_there_harms_nothing(make_bench: MakeBench) -> None:
    bench = await make_bench("epd", otlp_endpoint="http://127.0.0.1:1")
    assert len((await bench.ask(max_tokens=3)).token_ids) == 3


async def test_without_the_package_the_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "coordinator.tracing.traces", None)
    with pytest.raises(ValueError, match=r"otlp_endpoint: needs elasticmm\[tracing\]"):
        Coordinator(CoordinatorConfig(CHECKPOINT, "a token", otlp_endpoint="http://127.0.0.1:1"))
