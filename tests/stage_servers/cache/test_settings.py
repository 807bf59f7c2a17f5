from __future__ import annotations

import pytest

from stage_servers.cache.settings import CacheSettings


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("cache_policy", {"policy": "mru"}),
        ("cache_ttl_s", {"ttl_s": 0.0}),
        ("host_bytes", {"host_bytes": -1}),
    ],
)
def test_what_makes_no_sense_is_named(field: str, settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=field):
        CacheSettings(**settings)  # type: ignore[arg-type]
