import json
from pathlib import Path

import pytest

from cli.waterfall import bars, steps_of
from core.access import write_token
from elasticmm_client import AdminClient
from elasticmm_client.recent import RequestTrace
from tests.cli.conftest import RunCli
from tests.clients.fake_cluster import TOKEN, FakeCluster


@pytest.fixture
def where(cluster: FakeCluster, tmp_path: Path) -> tuple[object, ...]:
    write_token(tmp_path / "token", TOKEN)
    return ("--address", cluster.address, "--token-file", tmp_path / "token")


def trace_of(cluster: FakeCluster, request_id: str) -> RequestTrace:
    with AdminClient(cluster.address, TOKEN) as admin:
        return admin.trace(request_id)


def test_steps_fill_the_time_up_to_the_last_token(cluster: FakeCluster) -> None:
    steps = [(each.name, each.start_ms, each.end_ms) for each in steps_of(trace_of(cluster, "req-1"))]
    assert steps == [
        ("prepare", 0, 4),
        ("queue", 4, 10),
        ("encode", 12, 50),
        ("transfer", 50, 60),
        ("prefill", 60, 98),
        ("transfer", 98, 105),
        ("first token", 100, 100),
        ("decode", 105, 300),
    ]


def test_bars_are_to_scale(cluster: FakeCluster) -> None:
    lines = {line.split("|")[0].strip(): line.split("|")[1] for line in bars(trace_of(cluster, "req-1"), 30)}
    assert lines["encode e-0"] == " " + "#" * 4 + " " * 25
    assert lines["decode pd-0"] == " " * 10 + "#" * 20
    assert lines["first token"] == " " * 10 + "^" + " " * 19
    assert "transfer e-0>pd-0" in lines


def test_shows_one_request(run_cli: RunCli, where: tuple[object, ...]) -> None:
    result = run_cli("trace", "req-1", *where)
    assert result.exit_code == 0
    assert "TTFT 100.0 ms, TPOT 20.0 ms, total 300.0 ms" in result.output
    assert "70 tokens in (16 cached, 1 pictures), 11 out" in result.output


def test_a_running_one_says_where_it_is(run_cli: RunCli, where: tuple[object, ...]) -> None:
    result = run_cli("trace", "req-2", *where)
    assert "encoding" in result.output
    assert "at work: e-0, pd-0" in result.output


def test_json_has_the_steps(run_cli: RunCli, where: tuple[object, ...]) -> None:
    trace = json.loads(run_cli("trace", "req-1", "--json", *where).stdout)
    assert (trace["tpot_ms"], trace["end_ms"], trace["state"]) == (20, 300, "finished")
    assert trace["steps"][2] == {
        "name": "encode", "start_ms": 12, "end_ms": 50, "instance": "e-0", "transport": "shm"
    }  # fmt: skip


def test_without_an_id_it_lists(run_cli: RunCli, where: tuple[object, ...]) -> None:
    assert [line.split(":")[0] for line in run_cli("trace", *where).stdout.splitlines()] == ["req-1", "req-2"]
    listed = json.loads(run_cli("trace", "--json", "-n", 1, *where).stdout)["requests"]
    assert [each["request_id"] for each in listed] == ["req-2"]


def test_an_unknown_one(run_cli: RunCli, where: tuple[object, ...]) -> None:
    result = run_cli("trace", "nobody", *where)
    assert (result.exit_code, "not among" in result.stderr) == (1, True)
