"""plan, why, pin, unpin, drain and resume: what they show and what they order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.access import write_token
from elasticmm.v1 import inference_pb2, stage_control_pb2
from tests.cli.conftest import RunCli
from tests.clients.fake_cluster import TOKEN, FakeCluster


@pytest.fixture
def where(cluster: FakeCluster, tmp_path: Path) -> list[object]:
    write_token(tmp_path / "token", TOKEN)
    return ["--address", cluster.address, "--token-file", tmp_path / "token"]


def test_the_plan_shows_wanted_against_present(run_cli: RunCli, where: list[object]) -> None:
    lines = run_cli("plan", *where).stdout.splitlines()
    assert lines[0] == "policy emp, plan 7, 3 transitions done, 1 rolled back"
    moving, serving = (next(line for line in lines if name in line) for name in ("e-0", "pd-0"))
    assert "shared:encode" in moving
    assert "text:prefill" in moving
    assert "clearing" in moving
    assert "as it is (pinned)" in serving
    assert "1m05s" in serving
    past = lines[next(index for index, line in enumerate(lines) if "last transitions" in line) :]
    assert any("250 ms" in line and "200 ms" in line and "2 (5.0 MiB)" in line for line in past)


def test_the_plan_as_json(run_cli: RunCli, where: list[object]) -> None:
    plan = json.loads(run_cli("plan", "--json", *where).stdout)
    assert (plan["policy"], plan["version"]) == ("emp", 7)
    assert plan["instances"][0]["wanted"] == {"roles": ["prefill"], "group": "text"}
    assert plan["instances"][1]["wanted"] is None
    assert [(each["number"], each["num_moved"], each["size_bytes"]) for each in plan["past"]] == [
        (4, 2, 5 << 20)
    ]


def test_why(run_cli: RunCli, where: list[object]) -> None:
    said = run_cli("why", "r", *where).stdout
    assert said == "     1.5 s ago  dispatch: r goes to p-0  (waited_s 0.25)\n"
    assert run_cli("why", "other", *where).stdout == "no decision is kept about other\n"
    (decision,) = json.loads(run_cli("why", "--json", *where).stdout)["decisions"]
    assert decision["numbers"] == {"waited_s": 0.25}


@pytest.mark.parametrize(
    ("words", "roles", "group"),
    [
        (["pd"], [inference_pb2.STAGE_PREFILL, inference_pb2.STAGE_DECODE], 0),
        (["text"], [], stage_control_pb2.MODALITY_GROUP_TEXT),
        (["encode", "multimodal"], [inference_pb2.STAGE_ENCODE], stage_control_pb2.MODALITY_GROUP_MULTIMODAL),
    ],
)
def test_pin(
    run_cli: RunCli, where: list[object], cluster: FakeCluster, words: list[str], roles: list[int], group: int
) -> None:
    result = run_cli("pin", "p-0", *words, *where)
    assert result.exit_code == 0
    assert result.stdout == f"p-0 is pinned to {' '.join(words)}\n"
    ((verb, request),) = cluster.orders
    assert (verb, request.instance_id, list(request.roles), request.group) == ("pin", "p-0", roles, group)


@pytest.mark.parametrize("words", [["pd", "e"], ["text", "shared"], ["zebra"]])
def test_what_is_no_assignment_is_wrong_usage(run_cli: RunCli, where: list[object], words: list[str]) -> None:
    assert run_cli("pin", "p-0", *words, *where).exit_code == 2


@pytest.mark.parametrize("verb", ["unpin", "drain", "resume"])
def test_orders(run_cli: RunCli, where: list[object], cluster: FakeCluster, verb: str) -> None:
    assert run_cli(verb, "p-0", *where).exit_code == 0
    ((ordered, request),) = cluster.orders
    assert (ordered, request.instance_id) == (verb, "p-0")
    assert json.loads(run_cli(verb, "p-0", "--json", *where).stdout) == {"instance": "p-0"}
    refused = run_cli(verb, "last", *where)
    assert refused.exit_code == 1
    assert "nobody would play" in refused.stderr
