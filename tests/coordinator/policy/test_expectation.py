from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coordinator.policy.expectation import OutputExpectation


def test_default_until_lengths_are_known() -> None:
    expectation = OutputExpectation(default_tokens=100)
    assert expectation.expected_tokens(1000) == 100
    assert expectation.expected_tokens(7) == 7


def test_follows_recent_answers() -> None:
    expectation = OutputExpectation(default_tokens=100, window=20)
    for _ in range(20):
        expectation.record(10)
    assert expectation.expected_tokens(1000) == 10
    for _ in range(20):
        expectation.record(50)
    assert expectation.expected_tokens(1000) == 50


@given(st.lists(st.integers(1, 5000), max_size=300), st.integers(1, 100))
def test_within_one_and_max_tokens(lengths: list[int], max_tokens: int) -> None:
    expectation = OutputExpectation(default_tokens=256)
    for length in lengths:
        expectation.record(length)
    assert 1 <= expectation.expected_tokens(max_tokens) <= max_tokens


def test_what_has_left_the_window_does_not_count() -> None:
    expectation = OutputExpectation(10, window=20)
    for length in [*range(500, 520), *range(1, 21)]:
        expectation.record(length)
    assert expectation.expected_tokens(1000) == 16
