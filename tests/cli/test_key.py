"""Keys that are made, and commands that show one."""

import json
from pathlib import Path

import pytest

from coordinator.access.keys import ApiKey, digest_of
from coordinator.tenants.settings import parse_tenants
from tests.cli.conftest import RunCli
from tests.clients.fake_cluster import TOKEN, FakeCluster


def test_what_is_printed_is_a_tenants_file_without_the_key(run_cli: RunCli) -> None:
    result = run_cli("key", "new", "--tenant", 'a "b"', "--right", "infer", "--right", "admin")
    key = result.stderr.removeprefix("key: ").strip()
    assert parse_tenants(result.stdout).keyring.keys == (ApiKey(digest_of(key), 'a "b"', ("infer", "admin")),)
    assert key not in result.stdout


def test_as_json(run_cli: RunCli) -> None:
    made = json.loads(run_cli("key", "new", "--json").stdout)
    assert made["sha256"] == digest_of(made["key"])
    assert (made["tenant"], made["rights"]) == ("NAME", ["infer"])


def test_other_verbs_and_rights_are_wrong_usage(run_cli: RunCli) -> None:
    assert run_cli("key", "old").exit_code == run_cli("key", "new", "--right", "root").exit_code == 2


def test_commands_show_the_key_of_the_environment(
    run_cli: RunCli, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ELASTICMM_API_KEY", "mine")
    (tmp_path / "a.png").write_bytes(b"picture")
    words = ("generate", "Hi", "--image", tmp_path / "a.png", "--address", cluster.address)
    assert run_cli(*words).exit_code == 0
    assert cluster.proofs == {"GetModel": "Bearer mine", "Upload": "Bearer mine", "Generate": "Bearer mine"}


def test_an_admins_key_serves_where_there_is_no_token(
    run_cli: RunCli, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELASTICMM_API_KEY", TOKEN)
    assert run_cli("status", "--address", cluster.address).exit_code == 0
