from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.workload.arrivals import gamma, poisson, renewal
from simulator.workload.errors import WorkloadError


def cv(times: list[float]) -> float:
    gaps = np.diff(times)
    return float(gaps.std() / gaps.mean())


def test_poisson_has_its_rate_and_its_spread() -> None:
    times = poisson(np.random.default_rng(1), 50.0, 400.0)
    assert len(times) == pytest.approx(20_000, rel=0.03)
    assert cv(times) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("wanted", [0.3, 1.0, 3.0])
def test_gamma_gaps_have_the_wanted_variation(wanted: float) -> None:
    times = gamma(np.random.default_rng(2), 50.0, wanted, 600.0)
    assert cv(times) == pytest.approx(wanted, rel=0.06)


def test_weibull_gaps_keep_the_mean() -> None:
    assert len(renewal(np.random.default_rng(3), 50.0, 400.0, "Weibull", 1.33)) == pytest.approx(
        20_000, rel=0.03
    )


@given(st.floats(0.1, 100), st.floats(0.2, 4), st.floats(0.1, 50), st.integers(0, 1000))
def test_times_rise_within_the_stretch(rate: float, variation: float, duration_s: float, seed: int) -> None:
    times = gamma(np.random.default_rng(seed), rate, variation, duration_s)
    assert times == sorted(times)
    assert all(0 <= each < duration_s for each in times)
    assert times == gamma(np.random.default_rng(seed), rate, variation, duration_s)


@pytest.mark.parametrize(
    ("rate", "variation", "duration_s", "key"),
    [(0, 1, 1, "rate_rps"), (1, 0, 1, "cv"), (1, 1, -1, "duration_s")],
)
def test_what_makes_no_arrivals_is_named(rate: float, variation: float, duration_s: float, key: str) -> None:
    with pytest.raises(WorkloadError, match=f"^{key}: should be more than zero"):
        gamma(np.random.default_rng(1), rate, variation, duration_s)
