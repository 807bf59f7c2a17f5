import json
from pathlib import Path

import pytest

from cli.cache.table import row
from core.access import write_token
from elasticmm.v1 import admin_pb2, stage_control_pb2
from elasticmm_client.caches import cache_from_proto
from tests.cli.conftest import RunCli
from tests.clients.fake_cluster import TOKEN, FakeCluster
from tests.clients.fake_records import kv_cache


@pytest.fixture
def where(cluster: FakeCluster, tmp_path: Path) -> list[object]:
    write_token(tmp_path / "token", TOKEN)
    return ["--address", cluster.address, "--token-file", tmp_path / "token"]


def test_stats(run_cli: RunCli, where: list[object]) -> None:
    result = run_cli("cache", "stats", *where)
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.output.splitlines()]
    (shown,) = (cells for cells in rows if cells[:1] == ["pd-0"])
    assert shown[1:10] == ["kv", "40", "3.0/4.0", "1.0/8.0", "20", "75", "6.0", "12.5", "90"]
    assert shown[10:] == ["flush", "5", "room", "45", "2", "7", "/", "3", "6", "(2.5", "MiB)"]
    assert "index: 1000 keys in 3.0 MiB" in result.output


def test_a_pool_that_does_nothing_yet() -> None:
    caches = admin_pb2.InstanceCaches(caches=[stage_control_pb2.CacheCounters(pool=kv_cache().pool)])
    (instance,) = cache_from_proto(admin_pb2.GetCacheResponse(instances=[caches])).instances
    assert row(instance.pools[0])[2:4] == ("-", "-")
    assert row(instance.pools[0])[9::3] == ("-", "-")


def test_stats_as_json(run_cli: RunCli, where: list[object]) -> None:
    stats = json.loads(run_cli("cache", "stats", "--json", *where).stdout)
    assert [each["id"] for each in stats["instances"]] == ["e-0", "pd-0"]
    assert stats["instances"][1]["pools"][0]["evictions"] == {"room": 45, "flush": 5}


def test_flush(run_cli: RunCli, where: list[object], cluster: FakeCluster) -> None:
    assert run_cli("cache", "flush", *where).stdout == "told to forget: pd-0, e-0\n"
    words = ("--tenant", "t", "--pool", "embedding", "--instance", "p-1", "--reason", "why")
    assert json.loads(run_cli("cache", "flush", "--json", *words, *where).stdout) == {
        "instances": ["p-1", "e-0"]
    }
    everything, one = (request for _, request in cluster.orders)
    assert everything == admin_pb2.FlushCacheRequest()
    assert (one.tenant, one.instance_id, one.reason) == ("t", "p-1", "why")
    assert one.pool == stage_control_pb2.CACHE_POOL_EMBEDDING


def test_flush_of_what_is_not_there(run_cli: RunCli, where: list[object], cluster: FakeCluster) -> None:
    result = run_cli("cache", "flush", "--instance", "no", *where)
    assert (result.exit_code, result.stderr) == (1, "elasticmm: instance_id: is not attached\n")
    assert run_cli("cache", "flush", "--pool", "all", *where).exit_code == 2
    assert not cluster.orders


def test_explain(run_cli: RunCli, where: list[object]) -> None:
    assert run_cli("cache", "explain", "r", *where).stdout.splitlines() == [
        "r of tenant t, scope tenant, prefilled on p-1",
        "16 of 100 prompt tokens came from a cache; at dispatch p-0 had 96",
        "messages[0].parts[0].image: from a cache on e-0; at dispatch e-0, e-1 had it",
        "messages[0].parts[1].image: encoded on e-1; at dispatch nobody had it",
        "- the 96 tokens on p-0 were not used",
    ]
    found = json.loads(run_cli("cache", "explain", "r", "--json", *where).stdout)
    assert (found["known_tokens"], found["media"][0]["was_cached"]) == (96, True)


def test_explain_of_what_is_not_remembered(run_cli: RunCli, where: list[object]) -> None:
    result = run_cli("cache", "explain", "another", "--json", *where)
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["field"] == "request_id"
