"""Fits cost coefficients to measurements: least relative errors, and no coefficient negative."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from core.costs import EncodeCosts, MoveCosts, StepCosts, StepShape, StepTerm
from stage_servers.profiling.samples import SizeSample, StepSample

Array = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

_MOST_ROUNDS = 30
_LEAST_ERROR = 0.02  # closer than this no step gains weight
# What each side may depend on: a base, new tokens, pairs in attention, sequences, tokens of context. New
# tokens and sequences are one and the same in a decode, pairs and context, too; each side has one of them.
_BYTES = np.array([1.0, 0.0, 0.0, 1.0, 1.0])
_FLOPS = np.array([1.0, 1.0, 1.0, 1.0, 0.0])
_LEAST_S_PER_BYTE = 1e-15  # faster than anything: what a fit without a slope is taken for


def fit_nonnegative(inputs: Array, seconds: Array, weights: Array | None = None) -> Array:
    """Coefficients x >= 0 that minimise the weighted sum of squared relative errors of inputs @ x.

    The optimum is the plain least-squares solution over some of the columns, so all subsets are tried:
    exact, and quick for the few columns of a cost model. Columns of zeros get 0.
    """
    weight = np.ones(len(seconds)) if weights is None else np.sqrt(weights)
    scale = np.abs(inputs).max(axis=0, initial=0.0)
    rows = inputs / np.where(scale > 0, scale, 1.0) / seconds[:, None] * weight[:, None]
    used = [column for column in range(inputs.shape[1]) if scale[column] > 0]
    best, best_error = np.zeros(inputs.shape[1]), float(np.square(weight).sum())
    for count in range(1, len(used) + 1):
        for columns in combinations(used, count):
            found, *_ = np.linalg.lstsq(rows[:, columns], weight, rcond=None)
            error = float(np.square(rows[:, columns] @ found - weight).sum())
            if (found >= 0).all() and error < best_error:
                best, best_error = np.zeros(inputs.shape[1]), error
                best[list(columns)] = found / scale[list(columns)]
    return best


def fit_step(samples: Sequence[StepSample]) -> StepCosts:
    """Costs fixed + max(bytes, FLOP), by assigning each step to one of the two and fitting both, in turn.

    Starts from several assignments and keeps the best end. Raises ValueError without samples.
    """
    if not samples:
        raise ValueError("steps: none were measured")
    inputs = np.array([_row(sample.shape) for sample in samples])
    seconds = np.array([sample.seconds for sample in samples])
    ends = [_alternate(inputs, seconds, start) for start in _starts(samples)]
    terms = min(ends, key=lambda pair: _error(inputs, seconds, pair))
    return _costs(*terms)


def fit_encode(samples: Sequence[SizeSample], pixels: Sequence[SizeSample]) -> EncodeCosts:
    sizes, seconds = _columns(samples)
    fixed, per_token, per_token2 = fit_nonnegative(np.stack([sizes**0, sizes, sizes**2], axis=1), seconds)
    num_pixels, preprocess = _columns(pixels)
    per_pixel = fit_nonnegative(num_pixels[:, None], preprocess)[0]
    return EncodeCosts(_short(fixed), _short(per_token), _short(per_token2), _short(per_pixel))


def fit_move(samples: Sequence[SizeSample]) -> MoveCosts:
    sizes, seconds = _columns(samples)
    setup, per_byte = fit_nonnegative(np.stack([sizes**0, sizes], axis=1), seconds)
    return MoveCosts(_short(setup), _short(1 / max(per_byte, _LEAST_S_PER_BYTE)))


def relative_errors(predicted: Sequence[float], measured: Sequence[float]) -> dict[str, float]:
    """Median and 90th percentile of absolute relative errors; nothing without measurements."""
    if not measured:
        return {}
    errors = np.abs(np.array(predicted) / np.array(measured) - 1)
    return {"median": _short(np.median(errors)), "p90": _short(np.quantile(errors, 0.9))}


def _row(shape: StepShape) -> tuple[float, ...]:
    return 1.0, shape.new_tokens, shape.attended, shape.sequences, shape.context_tokens


def _columns(samples: Sequence[SizeSample]) -> tuple[Array, Array]:
    return np.array([each.size for each in samples]), np.array([each.seconds for each in samples])


def _starts(samples: Sequence[StepSample]) -> list[Mask]:
    """Which steps may be bound by arithmetic: those of more than so many new tokens or so much attention."""
    counts = np.array([float(sample.shape.new_tokens) for sample in samples])
    pairs = np.array([sample.shape.attended for sample in samples])
    starts = [np.ones(len(samples), dtype=np.bool_)]
    for values in (counts, pairs, counts + pairs / max(1.0, pairs.max()) * counts.max()):
        starts += [values > np.quantile(values, share) for share in (0.2, 0.35, 0.5, 0.65, 0.8, 0.9)]
    return starts


def _alternate(inputs: Array, seconds: Array, is_flops: Mask) -> tuple[Array, Array]:
    """Fits both sides, then gives every step to the side that predicts more, until that changes nothing.

    From the second round on a step weighs less the further it is from the fit: sums of absolute errors.
    """
    of_bytes = of_flops = np.zeros(inputs.shape[1])
    weights = np.ones(len(seconds))
    for _ in range(_MOST_ROUNDS):
        before = of_bytes, of_flops
        of_bytes = _fit_part(inputs * _BYTES, seconds, weights, ~is_flops, of_bytes)
        of_flops = _fit_part(inputs * _FLOPS, seconds, weights, is_flops, of_flops)
        is_flops = inputs @ of_flops > inputs @ of_bytes
        weights = 1 / np.maximum(_LEAST_ERROR, np.abs(_logs(inputs, seconds, (of_bytes, of_flops))))
        if all(
            np.allclose(new, old, rtol=1e-4) for new, old in zip((of_bytes, of_flops), before, strict=True)
        ):
            break
    return of_bytes, of_flops


def _fit_part(inputs: Array, seconds: Array, weights: Array, part: Mask, before: Array) -> Array:
    """A side that no step belongs to stays as it was."""
    return fit_nonnegative(inputs[part], seconds[part], weights[part]) if part.any() else before


def _logs(inputs: Array, seconds: Array, terms: tuple[Array, Array]) -> Array:
    """Logarithms of predicted over measured, in which half as long is as wrong as twice as long."""
    predicted = np.maximum(inputs @ terms[0], inputs @ terms[1])
    found: Array = np.log(np.maximum(predicted / seconds, 1e-6))
    return found


def _error(inputs: Array, seconds: Array, terms: tuple[Array, Array]) -> float:
    return float(np.abs(_logs(inputs, seconds, terms)).sum())


def _costs(of_bytes: Array, of_flops: Array) -> StepCosts:
    """What both sides have in common is the fixed cost."""
    fixed_s = float(min(of_bytes[0], of_flops[0]))
    return StepCosts(_short(fixed_s), _term(of_bytes, fixed_s), _term(of_flops, fixed_s))


def _term(coefficients: Array, fixed_s: float) -> StepTerm:
    base_s, *rest = coefficients
    return StepTerm(_short(base_s - fixed_s), *(_short(value) for value in rest))


def _short(value: float) -> float:
    """To four digits: more would claim a precision that measurements do not have."""
    return float(f"{value:.4g}")
