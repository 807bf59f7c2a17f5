"""Targets as words of the command line."""

from __future__ import annotations

import pytest

from cli.targets import parse_slo


def test_targets_with_and_without_one_of_their_own_for_media() -> None:
    assert parse_slo("2,0.1") == (2.0, 0.1, None)
    assert parse_slo("1,0.1,3") == (1.0, 0.1, 3.0)


@pytest.mark.parametrize("text", ["", "1", "1,2,3,4", "1,x", "0,1", "1,-1", "1,1,0"])
def test_wrong_targets_are_named(text: str) -> None:
    with pytest.raises(ValueError, match="slo: "):
        parse_slo(text)
