from __future__ import annotations

from typing import Any

import pytest

from stage_servers.cache.settings import CacheSettings


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"policy": "fifo"}, "cache_policy"),
        ({"host_bytes": -1}, "host_bytes"),
        ({"ttl_s": 0.0}, "cache_ttl_s"),
        ({"shares": {"a": 0.6, "b": 0.5}}, "cache_shares"),
    ],
)
def test_a_wrong_field_is_named(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named}: "):
        CacheSettings(**wrong)


def test_shares_are_parts_of_each_tier() -> None:
    assert CacheSettings(shares={"a": 0.25}).share_bytes(1000) == {"a": 250}
