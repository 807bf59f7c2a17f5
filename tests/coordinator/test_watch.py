"""A whole coordinator as its operators see it."""

from __future__ import annotations

import asyncio

from prometheus_client.parser import text_string_to_metric_families

from coordinator.server import Coordinator
from elasticmm.v1 import inference_pb2 as pb
from tests.coordinator.conftest import MakeBench, ask_for, picture


def counted(coordinator: Coordinator, name: str) -> dict[tuple[str, ...], float]:
    """Without what did not happen."""
    return {labels: value for labels, value in samples(coordinator, name).items() if value}


def samples(coordinator: Coordinator, name: str) -> dict[tuple[str, ...], float]:
    """Values by those of the labels, in order of the labels' names."""
    _, body = coordinator.watch.metrics.render()
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
        if sample.name == f"elasticmm:{name}"
    }


async def test_requests_of_all_kinds_are_seen(make_bench: MakeBench) -> None:
    bench = await make_bench("e", "p", "d", gateway=True)
    await bench.ask(max_tokens=3)
    image = pb.ImagePart(data=picture())
    await bench.ask(images=(image,), tenant="acme", max_tokens=2)
    await bench.fail(model="another")
    call = bench.inference.Generate(ask_for(max_tokens=500))
    await call.read()
    call.cancel()
    await bench.until(
        lambda: ("CANCELLED", "text", "default") in counted(bench.coordinator, "request_failure_total")
    )
    assert counted(bench.coordinator, "request_success_total") == {
        ("length", "text", "default"): 1,
        ("length", "multimodal", "acme"): 1,
    }
    assert counted(bench.coordinator, "request_failure_total") == {
        ("NOT_FOUND", "text", "default"): 1,
        ("CANCELLED", "text", "default"): 1,
    }
    assert counted(bench.coordinator, "request_encode_time_seconds_count") == {("multimodal",): 1}
    assert counted(bench.coordinator, "request_decode_time_seconds_count") == {
        ("text",): 1,
        ("multimodal",): 1,
    }
    classes = bench.coordinator.watch.slo.report().windows[0].classes
    assert [(each.calls.tenant, each.num_calls) for each in classes] == [("acme", 1), ("default", 1)]
    await bench.assert_idle()


async def test_what_runs_and_waits_is_seen(make_bench: MakeBench) -> None:
    bench = await make_bench()
    (stage,) = await bench.add("epd", blocks=8)
    stage.pause_at = 1
    calls = [bench.inference.Generate(ask_for()) for _ in range(3)]
    await bench.until(lambda: bench.num_requests == 3)
    seen = (
        samples(bench.coordinator, "num_requests_running"),
        samples(bench.coordinator, "num_requests_waiting"),
    )
    assert seen == ({("text",): 1, ("multimodal",): 0}, {("text",): 2, ("multimodal",): 0})
    assert samples(bench.coordinator, "policy_decisions_total")[("dispatch",)] == 1
    assert samples(bench.coordinator, "instance_requests") == {("epd0",): 1}
    stage.pause_at = None
    for call in calls:
        call.cancel()
    await bench.assert_idle()


async def test_instances_with_their_roles_and_blocks(make_bench: MakeBench) -> None:
    bench = await make_bench("e", "pd")
    assert samples(bench.coordinator, "instance_role").keys() == {
        ("e0", "shared", "encode"),
        ("pd0", "shared", "prefill"),
        ("pd0", "shared", "decode"),
    }
    assert samples(bench.coordinator, "kv_blocks")[("pd0", "free")] == 1000
    assert samples(bench.coordinator, "kv_cache_usage_perc")[("pd0",)] == 0
    assert samples(bench.coordinator, "ready") == {(): 1}


async def test_served_at_the_port_of_the_settings(make_bench: MakeBench) -> None:
    bench = await make_bench(metrics_port=0)
    port = int(bench.metrics_url.removesuffix("/metrics").rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert (
        b"\r\n# TYPE elasticmm:num_requests_running gauge\n" in answer
        or b"elasticmm:num_requests_running{" in answer
    )
