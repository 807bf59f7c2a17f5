"""A Prometheus of the tests' own, with deploy/'s settings but for address and pace."""

from __future__ import annotations

import math
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.ports import free_port

FOLDER = Path("deploy/prometheus")
PACE = "1s"  # of scrapes and rules
RATE_INTERVAL = "20s"  # what Grafana makes of the pace in deploy/

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed"
)


@dataclass(frozen=True, slots=True)
class Series:
    """One of an answer, with what it was at the times when it was a number."""

    labels: dict[str, str]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Prometheus:
    client: httpx.Client  # of its address

    def get(self, path: str, **parameters: Any) -> Any:
        """The data of an answer; raises AssertionError with Prometheus' reason where it refuses."""
        answer = self.client.get(f"/api/v1/{path}", params=parameters).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def value(self, query: str) -> float | None:
        """Now, of a query with one result at most; None where it has none."""
        result = self.get("query", query=query)["result"]
        assert len(result) <= 1
        return float(result[0]["value"][1]) if result else None

    def series(self, query: str, start_s: float, end_s: float) -> list[Series]:
        """Over a span of Unix time, as a panel asks; without those that were no number all the time."""
        asked = {"query": query, "start": start_s, "end": end_s, "step": PACE}
        found = [_series(each) for each in self.get("query_range", **asked)["result"]]
        return [each for each in found if each.values]

    def label_values(self, metric: str, label: str) -> list[str]:
        return list(self.get(f"label/{label}/values", **{"match[]": metric}))

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Raises AssertionError where it does not within a minute."""
        end_s = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < end_s, "Prometheus never saw it"
            time.sleep(0.2)


def _series(result: dict[str, Any]) -> Series:
    numbers = (float(value) for _, value in result["values"])
    return Series(result["metric"], tuple(each for each in numbers if not math.isnan(each)))


@contextmanager
def prometheus(folder: Path, coordinator: str, front: str) -> Iterator[Prometheus]:
    """Keeps its data in `folder` and scrapes a coordinator and a door in front of it, each "HOST:PORT"."""
    (folder / "prometheus.yml").write_text(yaml.safe_dump(_settings(coordinator, front)))
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command += [f"--web.listen-address={address}", "--log.level=warn"]
    client = httpx.Client(base_url=f"http://{address}", timeout=30)
    with client, subprocess.Popen(command, cwd=folder) as process:
        try:
            started = Prometheus(client)
            started.wait_until(lambda: _is_ready(client))
            yield started
        finally:
            process.terminate()
            process.wait(30)


def _settings(coordinator: str, front: str) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    settings["global"] = {"scrape_interval": PACE, "evaluation_interval": PACE}
    settings["rule_files"] = [str((FOLDER / name).resolve()) for name in settings["rule_files"]]
    settings["scrape_configs"][0]["static_configs"][0]["targets"] = [coordinator]
    in_front = {"job_name": "elasticmm-http", "static_configs": [{"targets": [front]}]}
    settings["scrape_configs"].append(in_front)
    return settings


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False
