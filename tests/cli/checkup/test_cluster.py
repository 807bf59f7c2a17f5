import socket
from pathlib import Path

import pytest

import cli.checkup.cluster
from cli.checkup.cluster import check_cluster, check_port
from cli.checkup.finding import Level
from cli.endpoint import Endpoint
from cli.state import ClusterRecord, StateDir
from elasticmm_client import AdminClient, Tls
from tests.clients.fake_cluster import TOKEN, FakeCluster


def test_a_cluster_that_answers(cluster: FakeCluster, tmp_path: Path) -> None:
    (found,) = check_cluster(StateDir(tmp_path), Endpoint(cluster.address, TOKEN), is_named=True)
    assert (found.level, found.said) == (Level.OK, "serves echo, 2 instances")


def test_a_wrong_token(cluster: FakeCluster, tmp_path: Path) -> None:
    (found,) = check_cluster(StateDir(tmp_path), Endpoint(cluster.address, "other"), is_named=True)
    assert (found.level, "--token-file" in found.mend) == (Level.PROBLEM, True)


def test_a_cluster_that_is_written_down_and_gone(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    state.write_record(ClusterRecord("c", "127.0.0.1:1", "m", "epd1", ()))
    (found,) = check_cluster(state, Endpoint("127.0.0.1:1", None), is_named=False)
    assert (found.level, f"down --state-dir {tmp_path}" in found.mend) == (Level.PROBLEM, True)


def test_it_is_reached_as_by_other_commands(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS and API key included."""
    asked: list[Endpoint] = []

    def client(endpoint: Endpoint) -> AdminClient:
        asked.append(endpoint)
        return AdminClient(cluster.address, TOKEN)

    monkeypatch.setattr(cli.checkup.cluster, "admin_client", client)
    endpoint = Endpoint("h:1", None, api_key="emm-key", tls=Tls())
    (found,) = check_cluster(StateDir(tmp_path), endpoint, is_named=True)
    assert (asked, found.level) == ([endpoint], Level.OK)


def test_ports() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert check_port(port).level is Level.NOTE
    assert check_port(port).level is Level.OK
