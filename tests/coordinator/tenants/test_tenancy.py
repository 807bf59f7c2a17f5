"""Who may share what, and what is written down about it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from coordinator.audit import AuditLog
from coordinator.errors import NotAllowedError
from coordinator.tenants.settings import Tenants
from coordinator.tenants.tenancy import Tenancy
from core.cache.scope import CacheScope

SHARING = "[tenants.open]\nmay_share_cache = true\ncache_share = 0.5\n"


class Fixture:
    def __init__(self, folder: Path) -> None:
        self.file = folder / "tenants.toml"
        self.file.write_text(SHARING)
        self.log = folder / "audit.jsonl"
        self.audit = AuditLog(self.log)
        self.shares: list[Mapping[str, float]] = []
        self.changes: list[Tenants] = []
        self.tenancy = Tenancy(self.file, self.audit, self.shares.append, self.changes.append)

    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture
def rules(tmp_path: Path) -> Iterator[Fixture]:
    made = Fixture(tmp_path)
    yield made
    made.audit.close()


def test_scopes(rules: Fixture) -> None:
    scope_of = rules.tenancy.scope_of
    assert scope_of("anyone", None) is CacheScope.TENANT
    assert scope_of("anyone", CacheScope.NONE) is CacheScope.NONE
    assert scope_of("open", CacheScope.CLUSTER) is CacheScope.CLUSTER
    with pytest.raises(NotAllowedError) as caught:
        scope_of("anyone", CacheScope.CLUSTER)
    assert caught.value.field == "cache_scope"


def test_sharing_is_noted_once_a_tenant(rules: Fixture) -> None:
    for _ in range(3):
        rules.tenancy.scope_of("open", CacheScope.CLUSTER)
        with pytest.raises(NotAllowedError):
            rules.tenancy.scope_of("anyone", CacheScope.CLUSTER)
    rules.tenancy.scope_of("open", CacheScope.TENANT)
    noted = [each for each in rules.events() if each["event"] == "cluster_scope"]
    assert [(each["tenant"], each["is_allowed"]) for each in noted] == [("open", True), ("anyone", False)]


def test_settings_are_noted_at_the_start_and_when_they_change(rules: Fixture) -> None:
    rules.tenancy.reload()
    assert [each["event"] for each in rules.events()] == ["tenants_at_start"]
    rules.file.write_text('[tenants.new]\ncache_scope = "none"\n')
    rules.tenancy.reload()
    changed = rules.events()[1]
    assert changed["event"] == "tenants_changed"
    assert changed["tenants"] == {"new": {"cache_scope": "none", "may_share_cache": False}}
    assert rules.tenancy.scope_of("new", None) is CacheScope.NONE
    assert rules.shares == [{"open": 0.5}, {}]
    assert [each.cache_shares for each in rules.changes] == [{}]


def test_new_keys_are_told_without_new_shares(rules: Fixture) -> None:
    key = f"[[tenants.open.keys]]\nsha256 = '{'0' * 64}'\n"
    rules.file.write_text(SHARING + key)
    rules.tenancy.reload()
    assert [len(each.keyring) for each in rules.changes] == [1]
    assert len(rules.shares) == 1


def test_a_file_that_does_not_fit_changes_nothing(rules: Fixture) -> None:
    rules.file.write_text("nonsense")
    rules.tenancy.reload()
    assert rules.tenancy.scope_of("open", CacheScope.CLUSTER) is CacheScope.CLUSTER
    assert [each["event"] for each in rules.events()] == [
        "tenants_at_start",
        "tenants_refused",
        "cluster_scope",
    ]


def test_what_is_remembered_of_tenants_is_bounded(rules: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.tenants.tenancy._MAX_REMEMBERED", 2)
    for name in ("a", "b", "c", "c", "a"):
        with pytest.raises(NotAllowedError):
            rules.tenancy.scope_of(name, CacheScope.CLUSTER)
    assert [each.get("tenant") for each in rules.events()[1:]] == ["a", "b", "c", "a"]
