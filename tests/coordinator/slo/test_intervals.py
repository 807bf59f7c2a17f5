"""Intervals against published figures, and against samples of what is known."""

from __future__ import annotations

import random

import pytest

from coordinator.slo.intervals import difference, inverse, proportion, quantile, rate, sample_quantile


def test_wilson_as_newcombe_gives_it() -> None:
    """Newcombe 1998, Two-sided confidence intervals for the single proportion, table I: 81/263 and 0/20."""
    assert proportion(81, 263) == pytest.approx((0.3080, 0.2553, 0.3662), abs=5e-5)
    assert proportion(0, 20) == pytest.approx((0.0, 0.0, 0.1611), abs=5e-5)
    assert proportion(0, 0) is None


def test_the_difference_of_proportions_as_newcombe_gives_it() -> None:
    """Newcombe 1998, Interval estimation for the difference, table II, method 10: 56/70 and 48/80."""
    first, second = proportion(48, 80), proportion(56, 70)
    assert first is not None
    assert second is not None
    assert difference(second, first) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_a_quantile_has_limits_where_there_are_enough_samples() -> None:
    assert quantile([1.0, 2.0], 0.5) is None
    assert (sample_quantile([1.0, 2.0], 0.5), sample_quantile([], 0.5)) == (1.0, None)
    assert quantile(sorted(map(float, range(1, 1001))), 0.95) == (950, 936, 965)
    assert quantile(list(map(float, range(10))), 0.95) is None


def test_limits_hold_the_truth_as_often_as_they_say() -> None:
    """Of the 95th percentile of a uniform sample, in 500 tries with 400 samples each."""
    rng = random.Random(3)
    hits = 0
    for _ in range(500):
        found = quantile(sorted(rng.random() for _ in range(400)), 0.95)
        assert found is not None
        hits += found.low <= 0.95 <= found.high
    assert hits / 500 > 0.93


def test_rates_and_their_inverse() -> None:
    assert rate(0, 10.0) == pytest.approx((0.0, 0.0, 0.384), abs=1e-3)
    assert rate(100, 10.0) == pytest.approx((10.0, 8.222, 12.162), abs=1e-3)
    assert rate(3, 0.0) is None
    assert inverse(rate(100, 10.0), 1000) == pytest.approx((100, 82.2, 121.6), abs=0.1)
    assert inverse(rate(0, 10.0), 1000) is None
