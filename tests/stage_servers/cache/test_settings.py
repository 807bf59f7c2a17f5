from __future__ import annotations

from typing import Any

import pytest

from stage_servers.cache.settings import CacheSettings


@pytest.mark.parametrize(
    "wrong",
    [{"policy": "fifo"}, {"host_bytes": -1}, {"ttl_s": 0.0}, {"shares": {"a": 0.6, "b": 0.5}}],
)
def test_a_wrong_field_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: "):
        CacheSettings(**wrong)


def test_shares_are_parts_of_each_tier() -> None:
    assert CacheSettings(shares={"a": 0.25}).own_bytes(1000) == {"a": 250}
