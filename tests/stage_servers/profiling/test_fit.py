"""Fits recover costs that are known, also from noisy measurements."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.costs import StepCosts, StepShape, StepTerm, chunk_shape, decode_shape
from stage_servers.profiling.fit import (
    fit_encode,
    fit_move,
    fit_nonnegative,
    fit_step,
    relative_errors,
)
from stage_servers.profiling.samples import SizeSample, StepSample
from tests.core.profiles import STEP

GRID = [
    *(("prefill", chunk_shape(size, context)) for size in (16, 64, 256, 1024) for context in (0, 512, 2048)),
    *(("decode", decode_shape(batch, batch * each)) for batch in (1, 4, 16, 64) for each in (64, 512, 2048)),
    *(("mixed", decode_shape(8, 4096).plus(chunk_shape(size))) for size in (64, 512)),
]
factor = st.floats(0.2, 5)
share = st.integers(0, 1000).map(lambda number: number / 1000)


def measure(costs: StepCosts, noise: float = 0.0) -> list[StepSample]:
    draw = random.Random(0)
    return [StepSample(kind, shape, costs.step_s(shape) * draw.gauss(1, noise)) for kind, shape in GRID]


def errors(fitted: StepCosts, truth: StepCosts) -> dict[str, float]:
    return relative_errors(
        [fitted.step_s(shape) for _, shape in GRID], [truth.step_s(shape) for _, shape in GRID]
    )


@settings(max_examples=10)
@given(fixed=factor, of_bytes=factor, of_flops=factor)
def test_step_costs_are_recovered(fixed: float, of_bytes: float, of_flops: float) -> None:
    truth = StepCosts(STEP.fixed_s * fixed, STEP.bytes.scaled(of_bytes), STEP.flops.scaled(of_flops))
    found = errors(fit_step(measure(truth)), truth)
    assert found["median"] < 0.005
    assert found["p90"] < 0.05


@settings(max_examples=5)
@given(of_bytes=factor, of_flops=factor)
def test_noise_is_survived(of_bytes: float, of_flops: float) -> None:
    truth = StepCosts(STEP.fixed_s, STEP.bytes.scaled(of_bytes), STEP.flops.scaled(of_flops))
    found = errors(fit_step(measure(truth, noise=0.05)), truth)
    assert found["median"] < 0.05
    assert found["p90"] < 0.15


def test_the_two_sides_are_told_apart() -> None:
    fitted = fit_step(measure(STEP))
    assert fitted.flops.per_new_token_s == pytest.approx(STEP.flops.per_new_token_s, rel=0.02)
    assert fitted.bytes.per_context_token_s == pytest.approx(STEP.bytes.per_context_token_s, rel=0.05)
    assert fitted.tipping_tokens() == pytest.approx(STEP.tipping_tokens(), rel=0.1)


def test_a_device_of_one_regime_is_one_term() -> None:
    truth = StepCosts(1e-3, StepTerm(), StepTerm(per_new_token_s=1e-4, per_attended_s=1e-8))
    assert errors(fit_step(measure(truth)), truth)["p90"] < 0.01


def test_no_coefficient_is_negative() -> None:
    falling = [StepSample("decode", StepShape(n, n, n, n), 1 / n) for n in range(1, 9)]
    fitted = fit_step(falling)
    for term in (fitted.bytes, fitted.flops):
        assert min(term.base_s, term.per_new_token_s, term.per_attended_s, term.per_sequence_s) >= 0


@given(st.lists(st.tuples(share, share, st.floats(0.1, 1)), min_size=3, max_size=20))
def test_the_nonnegative_fit_is_the_best_one(rows: list[tuple[float, float, float]]) -> None:
    inputs, seconds = np.array([row[:2] for row in rows]), np.array([row[2] for row in rows])

    def error(x: object) -> float:
        return float(np.square(inputs @ np.asarray(x) / seconds - 1).sum())

    best = fit_nonnegative(inputs, seconds)
    assert (best >= 0).all()
    grid = np.linspace(0, 3, 13)
    assert error(best) <= min(error((a, b)) for a in grid for b in grid) + 1e-9


def test_encodes_and_moves() -> None:
    encodes = [SizeSample(n, 2e-3 + 4e-5 * n + 1e-9 * n * n) for n in (16, 64, 256, 1024, 4096)]
    costs = fit_encode(encodes, [SizeSample(n, 3e-8 * n) for n in (10_000, 500_000)])
    assert costs.encode_s(700) == pytest.approx(2e-3 + 4e-5 * 700 + 1e-9 * 700**2, rel=1e-3)
    assert costs.per_pixel_s == pytest.approx(3e-8)
    moves = fit_move([SizeSample(size, 1e-3 + size / 5e9) for size in (1e4, 1e6, 1e8)])
    assert (moves.setup_s, moves.bytes_per_s) == pytest.approx((1e-3, 5e9))


def test_moves_that_do_not_grow_have_a_bandwidth_still() -> None:
    assert fit_move([SizeSample(1e3, 2e-3), SizeSample(1e4, 1e-3)]).bytes_per_s > 0


def test_errors_are_relative() -> None:
    assert relative_errors([1.1, 2.0, 2.7], [1.0, 2.0, 3.0])["median"] == pytest.approx(0.1)
    assert relative_errors([], []) == {}


def test_nothing_measured() -> None:
    with pytest.raises(ValueError, match="steps: none"):
        fit_step([])
