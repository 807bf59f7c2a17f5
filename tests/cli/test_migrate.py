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


def test_says_where_from_and_where_to(run_cli: RunCli, where: list[object]) -> None:
    result = run_cli("migrate", "running", *where)
    assert result.exit_code == 0
    assert result.stdout == "moved from d-0 to d-1 by shm: 3.0 MiB, stood still 1.5 ms\n"


def test_json_and_a_named_target(run_cli: RunCli, where: list[object]) -> None:
    moved = json.loads(run_cli("migrate", "running", "--to", "d-7", "--json", *where).stdout)
    assert (moved["request_id"], moved["to_instance"], moved["size_bytes"]) == ("running", "d-7", 3 << 20)


def test_a_refusal_fails(run_cli: RunCli, where: list[object]) -> None:
    result = run_cli("migrate", "running", "--to", "full", *where)
    assert result.exit_code == 1
    assert "no room" in result.stderr
