"""Decode steps of an unchanged batch, in closed form: one event instead of one per token."""

from __future__ import annotations

import sys
from math import ceil, sqrt

from core.costs import StepCosts, StepTerm

_NEVER = sys.maxsize
_ROUNDING_S = 1e-12  # two sums of one run may differ by so much


class _Line:
    """A term of the step's cost as a line over the batch: constant, per sequence, per token of context."""

    __slots__ = ("per_context_s", "per_sequence_s", "start_s")

    def __init__(self, fixed_s: float, term: StepTerm) -> None:
        self.start_s = fixed_s + term.base_s
        self.per_sequence_s = term.per_new_token_s + term.per_sequence_s
        self.per_context_s = term.per_attended_s + term.per_context_token_s


class DecodeRun:
    """The run that goes on now on one instance; `begin` starts the next one in the same object.

    Step i (from 0) of B sequences with C tokens of context takes fixed + max(bytes, flops) at C + i * B
    tokens; both terms are lines over i, so that the dearer one changes at most once, at step `_turn`:

        steps 0 .. _turn - 1     _first + _slope * i
        steps _turn …            _later + _later_slope * (i - _turn)
    """

    __slots__ = (
        "_bytes",
        "_first",
        "_flops",
        "_head_s",
        "_later",
        "_later_slope",
        "_slope",
        "_turn",
        "end_s",
        "is_last_step",
        "num_steps",
        "seconds",
        "start_s",
    )

    def __init__(self, costs: StepCosts) -> None:
        self._bytes = _Line(costs.fixed_s, costs.bytes)
        self._flops = _Line(costs.fixed_s, costs.flops)
        self.start_s = self.seconds = self.end_s = 0.0  # of the steps that it will have
        self.num_steps = 0
        self.is_last_step = False  # known to be in it: what comes in cannot cut it any more
        self._first = self._slope = self._head_s = self._later = self._later_slope = 0.0
        self._turn = _NEVER

    def begin(self, start_s: float, batch: int, context: int, num_steps: int) -> None:
        """`context` is what the first step reads, `num_steps` how far the run may go."""
        first, other = self._bytes, self._flops
        value = first.start_s + batch * first.per_sequence_s + context * first.per_context_s
        rival = other.start_s + batch * other.per_sequence_s + context * other.per_context_s
        slope, rival_slope = batch * first.per_context_s, batch * other.per_context_s
        if rival > value or (rival == value and rival_slope > slope):
            value, rival, slope, rival_slope = rival, value, rival_slope, slope
        self.start_s, self._first, self._slope = start_s, value, slope
        self._turn, self.is_last_step = _NEVER, num_steps == 1
        if rival_slope > slope:
            turn = ceil((value - rival) / (rival_slope - slope))
            if turn < num_steps:
                self._turn = turn
                self._head_s = turn * (value + slope * (turn - 1) / 2)
                self._later, self._later_slope = rival + rival_slope * turn, rival_slope
        self._end_after(num_steps)

    def cut(self, now_s: float) -> bool:
        """Lets the step at hand be the last one; whether the run gets shorter by that."""
        self.is_last_step = True
        num_steps = self.steps_by(now_s)
        if num_steps == self.num_steps:
            return False
        self._end_after(num_steps)
        return True

    def elapsed_s(self, num_steps: int) -> float:
        """Seconds from the start to the end of that many steps."""
        turn = self._turn
        if num_steps <= turn:
            return num_steps * (self._first + self._slope * (num_steps - 1) / 2)
        rest = num_steps - turn
        return self._head_s + rest * (self._later + self._later_slope * (rest - 1) / 2)

    def _end_after(self, num_steps: int) -> None:
        self.num_steps, self.seconds = num_steps, self.elapsed_s(num_steps)
        self.end_s = self.start_s + self.seconds

    def steps_by(self, now_s: float) -> int:
        """How many steps have begun by then, at least 1: the last of them cannot be stopped any more."""
        if self.num_steps == 1:
            return 1
        elapsed = now_s - self.start_s - _ROUNDING_S
        if self._turn != _NEVER and elapsed > self._head_s:
            guess = self._turn + _solve(elapsed - self._head_s, self._later, self._later_slope)
        else:
            guess = _solve(elapsed, self._first, self._slope)
        guess = max(guess, 1)
        elapsed_s = self.elapsed_s
        while guess > 1 and elapsed_s(guess - 1) >= elapsed:
            guess -= 1
        most = self.num_steps
        while guess < most and elapsed_s(guess) < elapsed:
            guess += 1
        return guess if guess < most else most


def _solve(elapsed_s: float, first_s: float, slope_s: float) -> int:
    """About the n with n * first + slope * n * (n - 1) / 2 = elapsed."""
    if elapsed_s <= 0:
        return 0
    if slope_s * elapsed_s < 1e-9 * first_s * first_s:
        return ceil(elapsed_s / first_s)
    linear = first_s - slope_s / 2
    return ceil((sqrt(linear * linear + 2 * slope_s * elapsed_s) - linear) / slope_s)
