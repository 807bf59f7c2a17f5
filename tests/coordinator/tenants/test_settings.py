"""The file of tenants' settings: what it says, what it leaves open, and what is refused by its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.access.keys import ApiKey, digest_of
from coordinator.tenants.settings import Tenants, TenantSettings, load_tenants, parse_tenants
from core.cache.scope import CacheScope

DIGEST = digest_of("a key")

WHOLE = """
[default]
cache_scope = "none"

[tenants.acme]
cache_scope = "cluster"
may_share_cache = true
cache_share = 0.25

[tenants."two words"]
cache_share = 0.75
"""


def test_a_whole_file() -> None:
    tenants = parse_tenants(WHOLE)
    assert tenants.of("anyone") == TenantSettings(CacheScope.NONE)
    assert tenants.of("acme") == TenantSettings(CacheScope.CLUSTER, True, 0.25)
    assert tenants.of("two words") == TenantSettings(CacheScope.NONE, False, 0.75)
    assert tenants.cache_shares == {"acme": 0.25, "two words": 0.75}


def test_no_file_and_an_empty_one_name_nobody() -> None:
    assert load_tenants(None) == parse_tenants("") == Tenants()
    assert Tenants().of("anyone") == TenantSettings(CacheScope.TENANT, False, None)


def test_tenants_have_what_the_default_says() -> None:
    tenants = parse_tenants(
        "default.may_share_cache = true\n[tenants.a]\n[tenants.b]\nmay_share_cache = false"
    )
    assert tenants.of("a").may_share_cache
    assert not tenants.of("b").may_share_cache


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("tenants.a.cache_scope = 'all'", "tenants.a.cache_scope: should be one of none, tenant, cluster"),
        ("tenants.a.cache_scope = 'cluster'", "tenants.a.cache_scope: is cluster, but may_share_cache"),
        ("default.cache_scope = 'cluster'", "default.cache_scope: is cluster"),
        ("tenants.a.cache_share = 1.5", "tenants.a.cache_share: 1.5 is not between 0 and 1"),
        ("tenants.a.cache_share = -1", "tenants.a.cache_share: should not be negative"),
        ("tenants.a.cache_share = true", "tenants.a.cache_share: should be a number"),
        ("tenants.a.cache_share = 0.6\ntenants.b.cache_share = 0.5", "1.1 together"),
        ("tenants.a.share = 1", "tenants.a.share: is no known key"),
        ("default.cache_share = 0.5", "default.cache_share: is no known key"),
        ("tenant.a = {}", "tenant: is no known key"),
        ("tenants = 3", "tenants: should be a table"),
        ("tenants.a = 3", "tenants.a: should be a table"),
        ("a = ", "is no TOML"),
        ("tenants.a.keys = 3", "tenants.a.keys: should be a list"),
        ("tenants.a.keys = [3]", "tenants.a.keys[0]: should be a table"),
        ("tenants.a.keys = [{}]", "tenants.a.keys[0].sha256: is missing"),
        ("tenants.a.keys = [{sha256 = 'secret'}]", "tenants.a.keys[0]: sha256: is not 64"),
        (
            f"tenants.a.keys = [{{sha256 = '{DIGEST}', rights = ['root']}}]",
            "keys[0].rights[0]: should be one of",
        ),
        (f"tenants.a.keys = [{{sha256 = '{DIGEST}', rights = []}}]", "keys[0]: rights: is empty"),
        (
            f"tenants.a.keys = [{{sha256 = '{DIGEST}', tenants = ['*', 'b']}}]",
            "keys[0].tenants: names others",
        ),
        (f"tenants.a.keys = [{{sha256 = '{DIGEST}'}}, {{sha256 = '{DIGEST}'}}]", "stands there twice"),
        ("default.keys = []", "default.keys: is no known key"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, content: str, named: str) -> None:
    file = tmp_path / "tenants.toml"
    file.write_text(content)
    with pytest.raises(ValueError, match="tenants.toml: ") as caught:
        load_tenants(file)
    assert named in str(caught.value)


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none.toml: cannot be read"):
        load_tenants(tmp_path / "none.toml")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not UTF-8"):
        load_tenants(tmp_path / "bytes")


def test_shares_that_fill_the_cache_exactly() -> None:
    lines = [f"tenants.t{n}.cache_share = 0.1" for n in range(10)]
    assert len(parse_tenants("\n".join(lines)).cache_shares) == 10


def test_keys() -> None:
    tenants = parse_tenants(
        f"""
        [[tenants.a.keys]]
        sha256 = "{DIGEST}"

        [[tenants.b.keys]]
        sha256 = "{digest_of("b")}"
        rights = ["admin"]
        tenants = ["a"]
        """
    )
    assert tenants.keyring.keys == (
        ApiKey(DIGEST, "a", ("infer",), ()),
        ApiKey(digest_of("b"), "b", ("admin",), ("a",)),
    )
    assert DIGEST not in str(tenants.to_json())
    assert DIGEST[:12] in str(tenants.to_json())
