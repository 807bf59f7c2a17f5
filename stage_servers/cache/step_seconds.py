"""What a block of a prompt takes to compute, by the steps that this engine ran."""

from __future__ import annotations

from core.costs import StepShape, chunk_shape

_KEPT = 0.98  # of what was known, with every step that is learned from
_FIRST_S = 1e-5  # a token, until something was measured


class StepSeconds:
    """seconds = a * tokens + b * pairs of tokens that met in attention, fitted to the steps that had prompts
    in them, by least squares with forgetting; neither coefficient is below 0.
    """

    def __init__(self) -> None:
        self._per_token_s, self._per_pair_s = _FIRST_S, 0.0
        self._tt = self._tp = self._pp = self._ty = self._py = 0.0  # moments of tokens, pairs, seconds

    @property
    def is_measured(self) -> bool:
        """Whether a step was seen."""
        return self._tt > 0

    def note(self, shape: StepShape, seconds: float) -> None:
        """Of one step. A fixed part of its time is small where it has many tokens, and those weigh most."""
        tokens, pairs = float(shape.new_tokens), shape.attended
        self._tt = _KEPT * self._tt + tokens * tokens
        self._tp = _KEPT * self._tp + tokens * pairs
        self._pp = _KEPT * self._pp + pairs * pairs
        self._ty = _KEPT * self._ty + tokens * seconds
        self._py = _KEPT * self._py + pairs * seconds
        self._solve()

    def of(self, num_tokens: int, context_tokens: int) -> float:
        """Seconds that so many tokens after so many others take."""
        pairs = chunk_shape(num_tokens, context_tokens).attended
        return self._per_token_s * num_tokens + self._per_pair_s * pairs

    def _solve(self) -> None:
        determinant = self._tt * self._pp - self._tp * self._tp
        per_token_s = per_pair_s = -1.0
        if determinant > 1e-6 * self._tt * self._pp:  # else all steps had the same shape
            per_token_s = (self._ty * self._pp - self._py * self._tp) / determinant
            per_pair_s = (self._py * self._tt - self._ty * self._tp) / determinant
        if per_token_s <= 0 or per_pair_s < 0:
            per_token_s, per_pair_s = self._ty / self._tt, 0.0
        self._per_token_s, self._per_pair_s = per_token_s, per_pair_s
