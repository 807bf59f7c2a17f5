"""elasticmm ab: starts, shows and ends an experiment."""

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
    result = run_cli("ab", "start", "coupled", "--share", "0.25", "--id", "may", *where)
    assert result.stdout.startswith("coupled has 25% of the instances, experiment may")
    ((verb, request),) = cluster.orders
    assert (verb, request.policy, request.share, request.experiment) == ("trial", "coupled", 0.25, "may")


@pytest.mark.parametrize("verb", ["status", "stop"])
def test_both_arms_side_by_side(
    run_cli: RunCli, where: list[object], cluster: FakeCluster, verb: str
) -> None:
    lines = [line.split() for line in run_cli("ab", verb, *where).stdout.splitlines()]
    assert ["experiment", "x,", "for", "1m01s"] in lines
    assert ["a:", "emp", "on", "e-0,", "pd-0"] in lines
    assert ["b:", "coupled", "on", "no", "instance"] in lines
    assert ["crossed", "0", "7"] in lines
    assert ["attainment", "0.9", "1", "+0.1", "+0.01", "to", "+0.17"] in lines
    assert ["ttft_p95_s", "1.25"] in lines
    assert [verb for verb, _ in cluster.orders] == (["stop trial"] if verb == "stop" else [])


def test_the_report_as_json(run_cli: RunCli, where: list[object]) -> None:
    report = json.loads(run_cli("ab", "status", "--json", *where).stdout)
    assert (report["experiment"], report["arms"][1]["crossed"]) == ("x", 7)
    assert report["measures"][1] == {
        "name": "ttft_p95_s", "a": 1.25, "b": None, "change": None, "low": None, "high": None,
    }  # fmt: skip
