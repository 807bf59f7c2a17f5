"""The process as a whole: free of torch, ready, and gone on a signal."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.config import CoordinatorConfig
from coordinator.listening.options import endpoint
from coordinator.server import Coordinator
from tests.coordinator.conftest import CHECKPOINT, Bench

SCRIPT = """
import json, os, signal, sys
from pathlib import Path
from coordinator.config import CoordinatorConfig
from coordinator.process import run

def ready(where):
    heavy = [name for name in ("torch", "transformers", "httpx", "PIL") if name in sys.modules]
    print(json.dumps({"port": where.port, "media": where.media_endpoint, "heavy": heavy}), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

run(CoordinatorConfig(model_path=Path(sys.argv[1]), cluster_token="t"), on_ready=ready)
"""


def test_a_whole_life_without_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", SCRIPT, str(CHECKPOINT)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["heavy"] == []
    assert said["port"]
    assert said["media"].startswith("127.0.0.1:")
    assert "Traceback" not in done.stderr


TENANTS_SCRIPT = """
import os, signal, sys
from pathlib import Path
from coordinator.config import CoordinatorConfig
from coordinator.process import run

folder = Path(sys.argv[2])
file, log = folder / "tenants.toml", folder / "audit"
file.write_text("tenants.a.cache_share = 0.5")

def ready(where):
    file.write_text("tenants.b.cache_share = 0.5")
    for number in (signal.SIGHUP, signal.SIGTERM):
        os.kill(os.getpid(), number)

config = CoordinatorConfig(
    model_path=Path(sys.argv[1]), cluster_token="t", tenants=file, audit_log=log, start_gateway=False
)
run(config, on_ready=ready)
"""


def test_a_hangup_has_tenants_read_again(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error::ResourceWarning",
            "-c",
            TENANTS_SCRIPT,
            str(CHECKPOINT),
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
    assert [(each["event"], list(each["tenants"])) for each in events] == [
        ("tenants_at_start", ["a"]),
        ("tenants_changed", ["b"]),
    ]
    assert "Traceback" not in done.stderr


def test_a_model_folder_that_is_none(tmp_path: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert "config.json" in done.stderr


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        script = SCRIPT.replace('cluster_token="t"', f'cluster_token="t", port={taken.getsockname()[1]}')
        done = subprocess.run(
            [sys.executable, "-c", script, str(CHECKPOINT)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith("OSError: cannot listen on")


async def test_two_coordinators_do_not_share_a_port(bench: Bench) -> None:
    config = CoordinatorConfig(
        model_path=CHECKPOINT, cluster_token="t", port=bench.coordinator.port, start_gateway=False
    )
    with pytest.raises(OSError, match="cannot listen on"):
        await Coordinator(config).start()
    await bench.assert_idle()


@pytest.mark.parametrize(
    ("host", "advertised", "told"),
    [
        ("127.0.0.1", "", "127.0.0.1:5"),
        ("0.0.0.0", "", f"{socket.gethostname()}:5"),
        ("0.0.0.0", "gpu-1", "gpu-1:5"),
        ("::1", "", "[::1]:5"),
    ],
)
def test_what_others_are_told(host: str, advertised: str, told: str) -> None:
    config = CoordinatorConfig(model_path=CHECKPOINT, cluster_token="t", host=host, advertise_host=advertised)
    assert endpoint(config.public_host, 5) == told
