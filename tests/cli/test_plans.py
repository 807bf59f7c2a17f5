"""plan, why, pin, unpin, drain and resume: what they show and what they order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.why import _lines
from core.access import write_token
from elasticmm.v1 import inference_pb2, stage_control_pb2
from elasticmm_client.plan import Decision
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
    assert (
        " ".join(moving.split()) == "e-0 shared:e text:p clearing, to text:p 1s 1.50x switching took over 5 s"
    )
    assert " ".join(serving.split()) == "pd-0 shared:pd as it is (pinned) serving 1m05s"
    past = lines[next(index for index, line in enumerate(lines) if "last transitions" in line) :]
    row = next(line for line in past if "pd-0" in line)
    assert " ".join(row.split()) == "1m10s ago pd-0 shared:d shared:pd 250 ms 200 ms 3 2 (5.0 MiB)"


def test_the_plan_as_json(run_cli: RunCli, where: list[object]) -> None:
    plan = json.loads(run_cli("plan", "--json", *where).stdout)
    assert (plan["policy"], plan["version"]) == ("emp", 7)
    assert plan["instances"][0]["wanted"] == {"roles": ["prefill"], "group": "text"}
    assert plan["instances"][1]["wanted"] is None
    assert [(each["number"], each["num_moved"], each["size_bytes"]) for each in plan["past"]] == [
        (4, 2, 5 << 20)
    ]


def test_why(run_cli: RunCli, where: list[object]) -> None:
    """Columns, and numbers once for what follows from the same."""
    assert run_cli("why", "--dispatches", *where).stdout.splitlines() == [
        "12.2 s ago  search    cluster  splits",
        "                               score 0.5, score_before 2",
        "12.2 s ago  search    p-0      to p",
        " 1.5 s ago  dispatch  r        goes to p-0",
        "                               waited_s 0.25",
    ]


def test_why_leaves_no_line_where_nothing_was_weighed() -> None:
    weighed = {"score": 0.5}
    decisions = [
        Decision(9.0, "search", "p-0", "to p", weighed),
        Decision(8.0, "admin", "p-0", "drained", {}),
        Decision(7.0, "search", "p-0", "to pd", {"score": 0.25}),
    ]
    assert list(_lines(decisions)) == [
        "9.0 s ago  search  p-0  to p",
        "                        score 0.5",
        "8.0 s ago  admin   p-0  drained",
        "7.0 s ago  search  p-0  to pd",
        "                        score 0.25",
    ]


def test_why_marks_what_was_decided_in_the_shadow(run_cli: RunCli, where: list[object]) -> None:
    assert "  shadow: search  p-0" in run_cli("why", "--shadow", *where).stdout
    (decision,) = json.loads(run_cli("why", "r", "--shadow", "--json", *where).stdout)["decisions"]
    assert decision["is_shadow"]


def test_why_leaves_requests_out_unless_asked_for(run_cli: RunCli, where: list[object]) -> None:
    assert "dispatch" not in run_cli("why", *where).stdout
    assert "goes to p-0" in run_cli("why", "r", *where).stdout
    assert run_cli("why", "other", *where).stdout == "no decision is kept about other\n"
    decisions = json.loads(run_cli("why", "--json", *where).stdout)["decisions"]
    assert [each["subject"] for each in decisions] == ["cluster", "p-0"]
    assert decisions[0]["numbers"] == {"score": 0.5, "score_before": 2.0}


@pytest.mark.parametrize(
    ("words", "roles", "group"),
    [
        (["pd"], [inference_pb2.STAGE_PREFILL, inference_pb2.STAGE_DECODE], 0),
        (["text"], [], stage_control_pb2.MODALITY_GROUP_TEXT),
        (["Text"], [], stage_control_pb2.MODALITY_GROUP_TEXT),
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


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["pd", "e"], "pd e: give roles once and a group once at most"),
        (["text", "shared"], "text shared: give roles once and a group once at most"),
        (["video"], "'video' is neither roles (letters of 'epd') nor a group (text, multimodal, shared)"),
        ([""], "'' is neither roles (letters of 'epd') nor a group (text, multimodal, shared)"),
    ],
)
def test_what_is_no_assignment_is_wrong_usage(
    run_cli: RunCli, where: list[object], cluster: FakeCluster, words: list[str], problem: str
) -> None:
    result = run_cli("pin", "p-0", *words, *where)
    assert (result.exit_code, result.stderr) == (2, f"elasticmm: {problem}\n")
    assert not cluster.orders


@pytest.mark.parametrize(
    "words", [["pin"], ["pin", "p-0"], ["unpin"], ["drain"], ["resume"], ["plan", "p-0"]]
)
def test_a_word_too_few_or_too_many_is_wrong_usage(
    run_cli: RunCli, where: list[object], cluster: FakeCluster, words: list[str]
) -> None:
    assert run_cli(*words, *where).exit_code == 2
    assert not cluster.orders


def test_a_drain_that_is_not_waited_for_says_how_it_stands(
    run_cli: RunCli, where: list[object], cluster: FakeCluster
) -> None:
    cluster.never_empty = {"pd-0", "gone"}
    result = run_cli("drain", "pd-0", "--timeout", 2, *where)
    assert result.exit_code == 1
    assert result.stderr == "elasticmm: pd-0 is not empty after 2 s; it gets no more work until 'resume'\n"
    lost = run_cli("drain", "gone", "--timeout", 2, *where)
    assert (lost.exit_code, lost.stderr) == (1, "elasticmm: Deadline Exceeded\n")


@pytest.mark.parametrize("verb", ["unpin", "drain", "resume"])
def test_orders(run_cli: RunCli, where: list[object], cluster: FakeCluster, verb: str) -> None:
    assert run_cli(verb, "p-0", *where).exit_code == 0
    ((ordered, request),) = cluster.orders
    assert (ordered, request.instance_id) == (verb, "p-0")
    assert json.loads(run_cli(verb, "p-0", "--json", *where).stdout) == {"instance": "p-0"}
    refused = run_cli(verb, "last", *where)
    assert refused.exit_code == 1
    assert "nobody would play" in refused.stderr
