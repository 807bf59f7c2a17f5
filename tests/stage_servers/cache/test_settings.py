from __future__ import annotations

import pytest

from stage_servers.cache.settings import CacheSettings, parse_shares


def test_shares_are_read() -> None:
    assert parse_shares(["a=0.5", "b=c=0.25"]) == (("a", 0.5), ("b=c", 0.25))
    assert CacheSettings(shares=dict(parse_shares(["a=0.5"]))).share_bytes(101) == {"a": 50}


@pytest.mark.parametrize("words", [["a"], ["=0.5"], ["a=x"], ["a=0.6", "b=0.5"], ["a=-1"], ["a=0", "a=0"]])
def test_what_is_no_share_is_refused(words: list[str]) -> None:
    with pytest.raises(ValueError, match="cache_shares"):
        parse_shares(words)


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
