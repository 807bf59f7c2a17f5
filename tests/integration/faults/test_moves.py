"""An end of a migration dies or freezes in its middle: the stream goes on exactly, moved or not."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from elasticmm_client import InvalidRequest, Migration
from elasticmm_client.status import ClusterStatus
from tests.checkpoints import build_checkpoint
from tests.integration.faults.failing import Failing, failing, wait_for
from tests.integration.faults.streams import Reference, Streams

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

NUM_TOKENS = 500
STATES = [
    # where one of the ends stands still, which it is, who is lost
    ("copying to move", "source", "source"),
    ("copying to move", "source", "target"),
    ("committing KV", "source", "source"),
    ("committing KV", "source", "target"),
    ("moved KV arrives", "target", "source"),
    ("moved KV arrives", "target", "target"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("models") / "first")


@pytest.fixture(scope="module")
def reference(model: Path) -> Reference:
    return Reference(model, num_questions=3, num_tokens=NUM_TOKENS)


@pytest.fixture(scope="module")
def cluster(model: Path, reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failing]:
    names = ("e-0", "p-0", "d-0", "d-1")
    with failing(tmp_path_factory.mktemp("cluster"), model, *names, kv_blocks=300) as started:
        reference.check(Streams(started, reference.asked, NUM_TOKENS).results())
        yield started


@pytest.mark.parametrize("fault", ["killed", "frozen"])
@pytest.mark.parametrize(("point", "standing", "lost"), STATES)
def test_a_stream_that_moves_goes_on(
    cluster: Failing, reference: Reference, point: str, standing: str, lost: str, fault: str
) -> None:
    cluster.arm("d", "decoding")
    streams = Streams(cluster, reference.asked, NUM_TOKENS)
    source = cluster.wait_reached()
    name = source.request_id
    wait_for(lambda: streams.num_tokens[name] > 1, "the decoder has not been heard of")
    with ThreadPoolExecutor(1) as threads:
        moving = start_to_move(cluster, name, threads)
        cluster.arm("d", point)
        os.kill(source.pid, signal.SIGCONT)
        reached = cluster.wait_reached()
        victim = cluster.lose(reached, is_itself=lost == standing, fault=fault)
        failure = moving.exception(timeout=60)
    cluster.bring_back(victim)  # after a source gave its target up, which would else take it all the same
    reference.check(streams.results())
    # A target that got all before its source froze goes on; one that did not is dispatched anew.
    may_go_on_there = (point, lost, fault) == ("moved KV arrives", "source", "frozen")
    num_dispatches = cluster.num_dispatches(name)
    if not (may_go_on_there and num_dispatches == 1):
        assert isinstance(failure, InvalidRequest)
        assert num_dispatches == (1 if lost == "target" else 2)
    cluster.assert_nothing_is_lost()


def start_to_move(cluster: Failing, name: str, threads: ThreadPoolExecutor) -> Future[Migration]:
    """Returns once the coordinator counts the request at both ends; its source stands still."""
    moving = [threads.submit(cluster.client.migrate, name)]

    def is_under_way(status: ClusterStatus) -> bool:
        if moving[-1].done():  # refused: a report of its prefill was on its way
            moving.append(threads.submit(cluster.client.migrate, name))
        decoding = sum(each.requests for each in status.instances if "decode" in each.roles)
        return decoding > status.requests_running

    cluster.running.wait_until(is_under_way)
    return moving[-1]
