import json
from pathlib import Path

import pytest

from cli.cache_summary import cache_summary
from cli.status import duration
from cli.transfer_table import transfer_row
from core.access import write_token
from elasticmm.v1 import admin_pb2, stage_control_pb2
from elasticmm_client.caches import cache_from_proto
from elasticmm_client.status import TransferStatus
from tests.cli.conftest import RunCli
from tests.clients.fake_cluster import TOKEN, FakeCluster
from tests.clients.fake_records import kv_cache, sent


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    write_token(tmp_path / "token", TOKEN)
    return tmp_path / "token"


def test_shows_every_column(run_cli: RunCli, cluster: FakeCluster, token_file: Path) -> None:
    result = run_cli("status", "--address", cluster.address, "--token-file", token_file)
    assert result.exit_code == 0
    for word in (
        "e1pd1",
        "2 running",
        "pd-0",
        "shared",
        "prefill+decode",
        "cpu:0",
        "sdpa",
        "90/100",
        "dec 1 7 quarantined",
        "1m01s",
    ):
        assert word in result.output


def test_caches_are_one_line_once_they_are_used(
    run_cli: RunCli, cluster: FakeCluster, token_file: Path
) -> None:
    result = run_cli("status", "--address", cluster.address, "--token-file", token_file)
    assert "caches: KV 40 in 4.0 MiB, 75 hits in 20 look-ups, 12.5 s saved\n" in result.output
    unused = stage_control_pb2.CacheCounters(pool=kv_cache().pool, device_capacity_bytes=1)
    caches = [admin_pb2.InstanceCaches(caches=[unused])]
    assert cache_summary(cache_from_proto(admin_pb2.GetCacheResponse(instances=caches))) is None


def test_json_is_one_object(run_cli: RunCli, cluster: FakeCluster, token_file: Path) -> None:
    result = run_cli("status", "--json", "--address", cluster.address, "--token-file", token_file)
    status = json.loads(result.stdout)
    assert [instance["id"] for instance in status["instances"]] == ["e-0", "pd-0"]
    assert status["instances"][0]["attention_backend"] == "sdpa"
    kv, embedding = status["caches"]
    assert (kv["pool"], kv["entries"], kv["size_bytes"], kv["hits"]) == ("kv", 40, 4 << 20, 75)
    assert (embedding["pool"], embedding["saved_s"]) == ("embedding", 0)


def test_transfers_are_a_table_of_their_own(run_cli: RunCli, cluster: FakeCluster, token_file: Path) -> None:
    where = ("--address", cluster.address, "--token-file", token_file)
    assert "transport" not in run_cli("status", *where).output
    failed = sent(transport="", committed=0, size_bytes=0, seconds=0, failures={"NOT_FOUND": 2})
    cluster.transfers = [sent(), failed]
    rows = [line.split() for line in run_cli("status", *where).output.splitlines()]
    assert [row for row in rows if row[:2] == ["e-0", "pd-0"]] == [
        ["e-0", "pd-0", "shm", "3", "2.0", "4.0", "0"],
        ["e-0", "pd-0", "-", "0", "0.0", "-", "0", "NOT_FOUND", "2"],
    ]
    status = json.loads(run_cli("status", "--json", *where).stdout)
    assert status["instances"][0]["transfers"][1]["failures"] == {"NOT_FOUND": 2}


def test_a_pair_without_a_finished_transfer_has_no_rate() -> None:
    row = transfer_row("p-0", TransferStatus("d-0", "grpc", 0, 2, 1, 0, 0.0, {"TLS": 1, "ATTACH": 3}))
    assert row == ("p-0", "d-0", "grpc", "0 (2 aborted)", "0.0", "-", "1", "ATTACH 3 TLS 1")


def test_without_the_token_it_fails(run_cli: RunCli, cluster: FakeCluster) -> None:
    result = run_cli("status", "--address", cluster.address)
    assert result.exit_code == 1
    assert "token" in result.stderr


def test_nobody_there(run_cli: RunCli) -> None:
    result = run_cli("status", "--address", "127.0.0.1:1")
    assert result.exit_code == 3
    assert "elasticmm up" in result.stderr


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (185, "3m05s"), (7800, "2h10m"), (600, "10m"), (443_000, "5d03h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
