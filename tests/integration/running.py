"""Real clusters of real processes for the tests of this folder, started and ended by the CLI."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.endpoint import find_endpoint
from cli.state import StateDir
from elasticmm_client import Client
from elasticmm_client.status import ClusterStatus

SHM = Path("/dev/shm")
CLI = [sys.executable, "-m", "cli.main"]


@dataclass(frozen=True, slots=True)
class Running:
    """One cluster: where it is, and a client with the right to see its status."""

    address: str
    client: Client
    state_dir: Path
    pids: dict[str, int]
    http: str  # URL of the HTTP door

    def status(self) -> ClusterStatus:
        return self.client.status()

    def wait_until(self, holds: Callable[[ClusterStatus], bool], timeout_s: float = 60.0) -> ClusterStatus:
        """Polls the status until it is as wanted; raises AssertionError with the last one."""
        end_s = time.monotonic() + timeout_s
        while True:
            status = self.status()
            if holds(status):
                return status
            assert time.monotonic() < end_s, f"still {status}"
            time.sleep(0.1)

    def assert_idle(self) -> None:
        """Every request ended, and every block, embedding slot and lease is back."""
        self.wait_until(is_idle)


def is_idle(status: ClusterStatus) -> bool:
    return not (status.requests_running or status.requests_waiting) and all(
        each.free_kv_blocks == each.total_kv_blocks
        and each.free_embedding_blocks == each.total_embedding_blocks
        and not (each.leases or each.requests or each.sequences_decoding or each.sequences_prefilling)
        for each in status.instances
    )


@contextmanager
def cluster(state_dir: Path, model: Path, topology: str, *options: str) -> Iterator[Running]:
    """Starts a cluster on free ports and takes it down; nothing of it may be left afterwards."""
    where = ["--state-dir", str(state_dir)]
    command = [
        *CLI,
        "up",
        "--model",
        str(model),
        "--topology",
        topology,
        "--port",
        "0",
        "--checksums",
        "--detach",
        "--json",
    ]
    up = _run([*command, *where, *options])
    try:
        token = (state_dir / "token").read_text().strip()
        reached = find_endpoint(StateDir(state_dir), None)
        with Client(up["address"], token=token, tls=reached.tls) as client:
            yield Running(up["address"], client, state_dir, up["pids"], up["http"])
    finally:
        subprocess.run([*CLI, "down", *where], check=True, timeout=60)
    assert not [pid for pid in up["pids"].values() if is_alive(pid)]
    assert not [path.name for path in SHM.glob("elasticmm-*") if _is_of(path.name, up["pids"].values())]


def _is_of(segment: str, pids: Collection[int]) -> bool:
    """Whether one of these processes made it. Of media the number at the end counts items."""
    parts = segment.split("-")
    return parts[2 if parts[1] == "media" else -1] in map(str, pids)


def _run(command: list[str]) -> Any:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
