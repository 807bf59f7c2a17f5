"""What `elasticmm serve-http` makes of its options, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import cli.serve_http
from cli.state import ClusterRecord, StateDir
from coordinator.front.reach import Reach, ReachTls
from coordinator.front.settings import FrontSettings
from core.tls import TlsFiles
from tests.certificates import Authority
from tests.cli.conftest import RunCli

Served = list[tuple[FrontSettings, int]]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    """What would be served."""
    found: Served = []

    async def serve(settings: FrontSettings, num_workers: int, **_how: bool) -> None:
        found.append((settings, num_workers))

    monkeypatch.setattr(cli.serve_http, "_serve", serve)
    return found


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return Authority(tmp_path / "tls").issue()


def test_defaults(run_cli: RunCli, served: Served) -> None:
    assert run_cli("serve-http").exit_code == 0
    wanted = FrontSettings(Reach("127.0.0.1:50051"), port=8000, tls_client_cert=False)
    assert served == [(wanted, 1)]


def test_the_cluster_that_is_written_down(
    run_cli: RunCli, served: Served, tmp_path: Path, files: TlsFiles
) -> None:
    tls = {"ca": str(files.ca), "cert": str(files.cert), "key": str(files.key), "name": "door"}
    StateDir(tmp_path).write_record(ClusterRecord("c", "h:1", "/m", "coupled", (), tls))
    assert run_cli("serve-http", "--state-dir", tmp_path, "--workers", 3).exit_code == 0
    [(settings, num_workers)] = served
    assert settings.reach == Reach("h:1", ReachTls(**tls))
    assert (settings.tls, num_workers) == (None, 3)


def test_certificates_for_callers_are_others_than_the_coordinators(
    run_cli: RunCli, served: Served, files: TlsFiles
) -> None:
    own = ("--tls-cert", files.cert, "--tls-key", files.key)
    assert run_cli("serve-http", "--address", "h:1", *own, "--drain", 2).exit_code == 0
    assert run_cli("serve-http", "--address", "h:1", *own, "--tls-ca", files.ca).exit_code == 0
    (open_one, _), (closed_one, _) = served
    assert (open_one.tls, open_one.tls_client_cert) == (TlsFiles(files.cert, files.key, files.cert), False)
    assert (closed_one.tls, closed_one.tls_client_cert) == (
        TlsFiles(files.cert, files.key, files.ca),
        True,
    )
    assert (open_one.reach, open_one.drain_s) == (Reach("h:1"), 2.0)


def test_metrics_are_where_they_are_asked_for(run_cli: RunCli, served: Served) -> None:
    assert run_cli("serve-http", "--metrics-port", 9401, "--metrics-host", "::").exit_code == 0
    [(settings, _)] = served
    assert (settings.metrics_host, settings.metrics_port) == ("::", 9401)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--tls-ca", "x"), "tls_cert, tls_key: are needed together"),
        (("--tls-cert", "/no/such", "--tls-key", "/no/such"), "tls_cert: /no/such cannot be read"),
        (("--log-format", "xml"), "log_format"),
        (("--workers", 0), "workers"),
    ],
)
def test_wrong_usage(run_cli: RunCli, served: Served, words: tuple[object, ...], reason: str) -> None:
    result = run_cli("serve-http", *words)
    assert result.exit_code == 2
    assert reason in result.stderr
    assert not served


def test_it_serves_without_a_coordinator_until_it_is_told_to_end() -> None:
    words = ("serve-http", "--address", "127.0.0.1:1", "--port", "0", "--workers", "2", "--json")
    words += ("--metrics-port", "0")
    process = subprocess.Popen([sys.executable, "-m", "cli.main", *words], stdout=subprocess.PIPE)
    with process:
        said = json.loads(process.stdout.readline())
        assert (said["coordinator"], len(said["workers"])) == ("127.0.0.1:1", 2)
        assert 'elasticmm:http_workers{coordinator="lost"} 2.0' in httpx.get(said["metrics"]).text
        again = ("serve-http", "--port", said["http"].rpartition(":")[2])
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *again], capture_output=True, text=True, check=False
        )
        assert (done.returncode, "cannot listen on" in done.stderr) == (1, True)
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
