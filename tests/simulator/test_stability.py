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
    assert max((at_s for at_s, _ in made), default=0.0) < SETTLED_S


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("period_s", [10, 20])
def test_a_quick_wave_that_one_form_bears_is_not_chased(period_s: int, seed: int) -> None:
    assert switches(f"wave of {period_s} s", 12.0, seed) == []


@pytest.mark.parametrize(
    ("kind", "period_s", "rate_rps", "seed"),
    [
        ("", 20, 16.0, 1),
        ("", 40, 16.0, 2),
        ("", 120, 12.0, 1),
        ("token ", 20, 20.0, 1),
        ("token ", 40, 20.0, 1),
        ("token ", 40, 20.0, 2),
        ("token ", 120, 20.0, 1),
    ],
)
def test_a_wave_changes_the_form_at_most_there_and_back(
    kind: str, period_s: int, rate_rps: float, seed: int
) -> None:
    """In each period instances change twice on average at most; which ones do the policies may choose."""
    name = f"{kind}wave of {period_s} s"
    start_s = CASES[name].workload.bursts[0].start_s
    made = switches(name, rate_rps, seed)
    periods = [(int((at_s - start_s) // period_s), instance) for at_s, instance in made]
    together = Counter(period for period, _ in periods)
    assert max(together.values(), default=0) <= 2 * STABILITY.cluster.instances
    assert max(Counter(periods).values(), default=0) <= 3
    if kind:
        assert made  # another form is better in the bursts, and it is found
