"""An instance dies or freezes in any state of its requests, under load: every stream goes on exactly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkpoints import build_checkpoint
from tests.integration.faults.failing import Failing, failing, wait_for
from tests.integration.faults.streams import Reference, Streams

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

NAMES = ("e-0", "e-1", "p-0", "p-1", "d-0", "d-1")
CHUNK_TOKENS = 48
KV_BLOCKS = 60  # for some three of the answers: the others wait at the coordinator
STATES = [
    # who stands still, where, who is lost: itself or the peer that it works with
    ("e", "pulling", "itself"),
    ("e", "encoding", "itself"),
    ("e", "lending an embedding", "itself"),
    ("e", "told to encode", "peer"),
    ("e", "lending an embedding", "peer"),
    ("p", "told to prefill", "itself"),
    ("p", "first chunk", "itself"),
    ("p", "middle chunk", "itself"),
    ("p", "committing KV", "itself"),
    ("p", "told to prefill", "peer"),
    ("p", "middle chunk", "peer"),
    ("d", "KV arrives", "itself"),
    ("d", "KV arrives", "peer"),
    ("d", "decoding", "itself"),
    ("d", "ending", "itself"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("models") / "first")


@pytest.fixture(scope="module")
def reference(model: Path) -> Reference:
    return Reference(model)


@pytest.fixture(scope="module")
def cluster(model: Path, reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failing]:
    folder = tmp_path_factory.mktemp("cluster")
    with failing(folder, model, *NAMES, kv_blocks=KV_BLOCKS, chunk_tokens=CHUNK_TOKENS) as started:
        reference.check(Streams(started, reference.asked).results())  # also warms every instance up
        yield started


@pytest.mark.parametrize("fault", ["killed", "frozen"])
@pytest.mark.parametrize(("role", "point", "lost"), STATES)
def test_streams_go_on(
    cluster: Failing, reference: Reference, role: str, point: str, lost: str, fault: str
) -> None:
    cluster.arm(role, point)
    streams = Streams(cluster, reference.asked)
    reached = cluster.wait_reached()
    if point == "KV arrives":
        wait_for(lambda: streams.num_tokens[reached.request_id] == 1, "the first token was not sent")
    victim = cluster.lose(reached, is_itself=lost == "itself", fault=fault)
    cluster.bring_back(victim)  # while streams go on elsewhere
    reference.check(streams.results())
    assert streams.repeated, "no request was dispatched again"
    if fault == "frozen":
        assert_serves(cluster, reference, victim.name)
    cluster.assert_nothing_is_lost()


@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_so_does_what_waits_at_the_coordinator(cluster: Failing, reference: Reference, fault: str) -> None:
    cluster.arm("d", "decoding")
    streams = Streams(cluster, reference.asked * 2)
    reached = cluster.wait_reached()
    cluster.running.wait_until(lambda status: status.requests_waiting > 0)
    cluster.bring_back(cluster.lose(reached, is_itself=True, fault=fault))
    results = streams.results()
    reference.check(results[: len(reference.asked)])
    reference.check(results[len(reference.asked) :])
    assert set(streams.repeated) < set(streams.names)
    cluster.assert_nothing_is_lost()


def assert_serves(cluster: Failing, reference: Reference, name: str) -> None:
    """The very process that stood still has its part in answers again."""
    served: set[str] = set()
    for _ in range(5):
        results = Streams(cluster, reference.asked).results()
        reference.check(results)
        served |= {span.instance for result in results for span in result.stages}
        if name in served:
            return
    raise AssertionError(f"{name} serves nobody: {served}")
