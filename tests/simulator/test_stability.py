"""scenarios/stability.toml: what is steady is left alone, and a square wave is not chased."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from simulator.scenario import case_profile, read_scenario
from simulator.sweep import simulate
from simulator.workload.spec import Workload

FOLDER = Path(__file__).parents[2] / "scenarios"
STABILITY = read_scenario(FOLDER / "stability.toml")
CASES = {case.name: case for case in STABILITY.cases}
SETTLED_S = 45.0
Switches = list[tuple[float, str]]  # when, and which instance


def switches(case_name: str, rate_rps: float, seed: int) -> Switches:
    """Those that emp made while requests came; in the end it may change once more, for there are none."""
    case = CASES[case_name]
    requests = Workload(case.workload, FOLDER, seed).requests(rate_rps)
    emp = next(each for each in STABILITY.sets if each.name == "emp")
    result = simulate(STABILITY, case, emp, case_profile(case, FOLDER), requests)
    last_s = requests[-1].arrival_s
    return sorted(
        (span.end_s, span.instance_id)
        for span in result.spans
        if not span.assignment and span.end_s <= last_s
    )


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    ("case_name", "rate_rps"),
    [
        ("steady, a quarter text", 8.0),
        ("steady, a quarter text", 32.0),
        ("steady, three quarters text", 16.0),
        ("steady, pictures only", 12.0),
        ("steady, text only", 32.0),
    ],
)
def test_a_steady_load_that_fits_moves_nothing(case_name: str, rate_rps: float, seed: int) -> None:
    assert switches(case_name, rate_rps, seed) == []


@pytest.mark.parametrize("seed", [1, 2])
def test_a_steady_overload_moves_nothing_after_settling(seed: int) -> None:
    made = switches("steady, a quarter text", 60.0, seed)
    assert made
    assert max(at_s for at_s, _ in made) < SETTLED_S


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("period_s", [10, 20])
def test_a_quick_wave_that_one_form_bears_is_not_chased(period_s: int, seed: int) -> None:
    assert switches(f"wave of {period_s} s", 12.0, seed) == []


@pytest.mark.parametrize(
    ("period_s", "rate_rps", "seed"),
    [(20, 16.0, 1), (40, 12.0, 1), (40, 16.0, 2), (60, 16.0, 1), (120, 12.0, 1)],
)
def test_a_wave_changes_the_form_at_most_there_and_back(period_s: int, rate_rps: float, seed: int) -> None:
    """In each period no instance changes more than twice."""
    start_s = CASES[f"wave of {period_s} s"].workload.bursts[0].start_s
    made = switches(f"wave of {period_s} s", rate_rps, seed)
    assert made
    counts = Counter((int((at_s - start_s) // period_s), name) for at_s, name in made)
    assert max(counts.values()) <= 2


def test_a_quick_wave_that_no_form_bears_is_chased_ever_more_slowly() -> None:
    """Forms that take turns stay longer each time: at most one change in three periods, soon in ten."""
    made = switches("wave of 10 s", 16.0, 2)
    moments = [at_s for number, (at_s, _) in enumerate(made) if number == 0 or at_s - made[number - 1][0] > 5]
    assert 2 <= len(moments) <= 6
    assert moments[-1] - moments[-2] > 30
