import json
from pathlib import Path

import pytest

from core.access import write_token
from tests.cli.conftest import RunCli
from tests.clients.fake_cluster import TOKEN, FakeCluster


@pytest.fixture
def words(tmp_path: Path, cluster: FakeCluster) -> tuple[str, ...]:
    write_token(tmp_path / "token", TOKEN)
    return ("slo", "--address", cluster.address, "--token-file", str(tmp_path / "token"))


def test_shows_windows_and_classes(run_cli: RunCli, words: tuple[str, ...]) -> None:
    result = run_cli(*words)
    assert result.exit_code == 0
    for part in (
        "targets: first token in 2 s, 0.1 s per further token",
        "last 1m: 6 finished (watched for 30s), 90 instance-seconds, 15000 ($7.50) per thousand requests",
        "25% of prompt tokens cached, caches saved 7.5 s ($0.00), 3 MiB",
        "last 10m: 0 finished, 0 instance-seconds, caches saved",
    ):
        assert part in " ".join(result.output.split())
    cells = next(line.split() for line in result.output.splitlines() if "acme" in line)
    assert cells == ["acme", "text", "normal", "10", "30.0%", "1", "2", "4"]


def test_json_has_what_follows_from_the_counts(run_cli: RunCli, words: tuple[str, ...]) -> None:
    report = json.loads(run_cli(*words, "--json").stdout)
    first, second = report["windows"]
    assert (report["price_per_hour"], first["classes"][0]["attainment"]) == (1.8, 0.3)
    assert first["instance_s_per_thousand"] == 15000
    assert first["price_per_thousand"] == pytest.approx(7.5)
    assert (second["instance_s_per_thousand"], second["price_per_thousand"]) == (None, None)
