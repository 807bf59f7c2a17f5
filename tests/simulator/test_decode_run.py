from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.costs import StepCosts, StepTerm
from simulator.decode_run import DecodeRun

# The bytes term leads for small contexts, the other one for large ones.
COSTS = StepCosts(
    1e-3, StepTerm(base_s=5e-3, per_context_token_s=1e-7), StepTerm(per_sequence_s=1e-5, per_attended_s=1e-6)
)
batches = st.integers(1, 200)
contexts = st.integers(1, 100_000)
lengths = st.integers(1, 3000)


def begun(batch: int, context: int, num_steps: int) -> DecodeRun:
    run = DecodeRun(COSTS)
    run.begin(2.0, batch, context, num_steps)
    return run


@given(batches, contexts, st.integers(1, 300))
def test_a_run_takes_as_long_as_its_steps(batch: int, context: int, num_steps: int) -> None:
    steps = [COSTS.decode_step_s(batch, context + at * batch) for at in range(num_steps)]
    assert begun(batch, context, num_steps).elapsed_s(num_steps) == pytest.approx(sum(steps), rel=1e-9)


def test_the_dearer_term_changes_within_a_run() -> None:
    steps = [COSTS.decode_step_s(10, 100 + 10 * at) for at in range(1000)]
    assert steps[1] - steps[0] == pytest.approx(1e-6)
    assert steps[-1] - steps[-2] == pytest.approx(1e-5)
    assert begun(10, 100, 1000).elapsed_s(1000) == pytest.approx(sum(steps))


@given(batches, contexts, lengths, st.floats(0, 1))
def test_a_cut_ends_with_the_step_at_hand(batch: int, context: int, num_steps: int, share: float) -> None:
    run = begun(batch, context, num_steps)
    now_s = run.start_s + share * run.elapsed_s(num_steps)
    steps = run.steps_by(now_s)
    assert 1 <= steps <= num_steps
    assert run.start_s + run.elapsed_s(steps) >= now_s - 1e-9
    assert steps == 1 or run.start_s + run.elapsed_s(steps - 1) < now_s + 1e-9


def test_at_the_end_of_a_step_the_next_has_not_begun() -> None:
    run = begun(4, 1000, 50)
    assert [run.steps_by(run.start_s + run.elapsed_s(steps)) for steps in (1, 2, 7)] == [1, 2, 7]


@given(batches, contexts, lengths, st.floats(0, 1))
def test_a_run_is_cut_once(batch: int, context: int, num_steps: int, share: float) -> None:
    run = begun(batch, context, num_steps)
    now_s = run.start_s + share * run.seconds
    steps = run.steps_by(now_s)
    assert run.cut(now_s) is (steps < num_steps)
    assert (run.num_steps, run.is_last_step) == (steps, True)
    assert run.end_s == run.start_s + run.seconds == run.start_s + run.elapsed_s(steps)
    assert not run.cut((now_s + run.end_s) / 2)
    assert run.num_steps == steps


def test_a_run_of_one_step_is_never_cut() -> None:
    assert begun(4, 1000, 1).is_last_step
    assert not begun(4, 1000, 2).is_last_step
