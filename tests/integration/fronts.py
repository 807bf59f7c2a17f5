"""OpenAI's door in front of a cluster, by itself: `elasticmm serve-http`."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import psutil

from tests.integration.running import CLI, is_alive


@dataclass(frozen=True)
class Front:
    """One `elasticmm serve-http`."""

    url: str
    process: subprocess.Popen[bytes]

    @property
    def pids(self) -> list[int]:
        """Of its workers that run."""
        children = psutil.Process(self.process.pid).children()
        return [each.pid for each in children if each.status() != psutil.STATUS_ZOMBIE]


@contextmanager
def serve_http(*words: str) -> Iterator[Front]:
    """On a free port; none of its processes may be left afterwards."""
    command = [*CLI, "serve-http", "--port", "0", "--drain", "5", "--json", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    with process:
        try:
            assert process.stdout is not None
            front = Front(json.loads(process.stdout.readline())["http"], process)
            yield front
            pids = front.pids
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
    assert pids
    assert not [pid for pid in pids if is_alive(pid)]


def wait_ready(url: str) -> None:
    """Every worker, as far as connections of their own can tell."""
    end_s = time.monotonic() + 60
    while not all(httpx.get(f"{url}/ready").status_code == 200 for _ in range(8)):
        assert time.monotonic() < end_s, "a worker is not ready"
        time.sleep(0.1)
