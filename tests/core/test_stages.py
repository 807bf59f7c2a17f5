"""Role sets and their names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.stages import COUPLED, Stage, parse_roles, roles_name


@given(st.sets(st.sampled_from(Stage), min_size=1))
def test_names_round_trip(roles: set[Stage]) -> None:
    assert parse_roles(roles_name(roles)) == roles


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("epd", COUPLED),
        ("prefill", {Stage.PREFILL}),
        ("E,P", {Stage.ENCODE, Stage.PREFILL}),
        ("encode, decode", {Stage.ENCODE, Stage.DECODE}),
    ],
)
def test_spellings(name: str, roles: set[Stage]) -> None:
    assert parse_roles(name) == roles


@pytest.mark.parametrize("name", ["", "x", "e,x", ","])
def test_nonsense_is_named(name: str) -> None:
    with pytest.raises(ValueError, match="^roles:"):
        parse_roles(name)
