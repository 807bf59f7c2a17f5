"""elasticmm shadow: starts, shows and ends a policy set that does not act."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.access import write_token
from tests.cli.conftest import RunCli
from tests.clients.fake_cluster import TOKEN, FakeCluster


@pytest.fixture
def where(cluster: FakeCluster, tmp_path: Path) -> list[object]:
    write_token(tmp_path / "token", TOKEN)
    return ["--address", cluster.address, "--token-file", tmp_path / "token"]


def test_start(run_cli: RunCli, where: list[object], cluster: FakeCluster) -> None:
    assert run_cli("shadow", "start", "coupled", *where).stdout.startswith("coupled is in the shadow")
    ((verb, request),) = cluster.orders
    assert (verb, request.policy) == ("shadow", "coupled")


@pytest.mark.parametrize("verb", ["status", "stop"])
def test_the_report_in_words(run_cli: RunCli, where: list[object], cluster: FakeCluster, verb: str) -> None:
    assert run_cli("shadow", verb, *where).stdout.splitlines() == [
        "static:equal, in the shadow for 1m01s",
        "30.0% of 10 dispatches differ: 2 would go elsewhere, 1 would wait, 4 not compared for want of time",
        "  another instance for: prefill 2, decode 1",
        "first token predicted in 0.250 s by the acting set, 0.200 s by the shadow (mean of 9)",
        "plans changed what an instance is to play 1 times, the shadow's would have 4 times",
        "  e-0: shared:encode, the shadow wants multimodal:encode+prefill",
        "it took 0.012 s of the coordinator's time",
    ]
    assert [verb for verb, _ in cluster.orders] == (["stop shadow"] if verb == "stop" else [])


def test_the_report_as_json(run_cli: RunCli, where: list[object]) -> None:
    report = json.loads(run_cli("shadow", "status", "--json", *where).stdout)
    assert (report["same"], report["held"], report["differing_share"]) == (7, 1, 0.3)
    assert report["wanted"]["e-0"][1]["group"] == "multimodal"
