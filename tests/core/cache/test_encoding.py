from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.cache.encoding import encoded

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
VALUES = st.recursive(LEAVES, lambda each: st.lists(each) | st.dictionaries(st.text(), each), max_leaves=6)


def typed(value: object) -> object:
    """Equal only for equal values of equal types."""
    if isinstance(value, list):
        return list, [typed(each) for each in value]
    if isinstance(value, dict):
        return dict, sorted((name, repr(typed(each))) for name, each in value.items())
    return type(value), repr(value)


@given(VALUES, VALUES)
def test_two_values_have_the_same_bytes_only_if_they_are_the_same(one: object, other: object) -> None:
    assert (encoded(one) == encoded(other)) == (typed(one) == typed(other))  # type: ignore[arg-type]


def test_types_and_borders_between_values_count() -> None:
    values = [
        1,
        1.0,
        True,
        "1",
        b"1",
        ["1"],
        {"1": 1},
        ["ab", "c"],
        ["a", "bc"],
        ["abc"],
        [["a"], "bc"],
        None,
        [],
    ]
    assert len({encoded(value) for value in values}) == len(values)  # type: ignore[arg-type]


def test_the_order_of_settings_does_not_count() -> None:
    assert encoded({"a": 1, "b": [2]}) == encoded({"b": [2], "a": 1})


def test_what_is_no_plain_value_is_refused() -> None:
    with pytest.raises(TypeError, match="set is no plain value"):
        encoded({1, 2})  # type: ignore[arg-type]
