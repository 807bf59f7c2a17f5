"""Where elasticity has nothing to gain it must not cost anything: emp against what stays as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import pytest

from simulator.metrics import meets
from simulator.scenario import SetSpec, case_profile, read_scenario
from simulator.sweep import simulate
from simulator.workload.spec import Workload

FOLDER = Path(__file__).parents[2] / "scenarios"
LIGHT = read_scenario(FOLDER / "light.toml")
CASES = {case.name: case for case in LIGHT.cases}
FIXED = ("coupled", "static:text-first", "static:equal", "static:multimodal-first")
WITHIN = 1.03


class Served(NamedTuple):
    """One run."""

    attained: float
    ttft_s: float  # means
    tpot_s: float
    num_switches: int


def served(policy: str, case_name: str, rate_rps: float, **mix: float) -> Served:
    """A minute of the scenario's case under a policy set with the engine and caches of all."""
    case = CASES[case_name]
    assert case.workload.mix is not None
    spec = replace(case.workload.mix, duration_s=60.0, **mix)  # type: ignore[arg-type]
    requests = Workload(replace(case.workload, mix=spec), FOLDER, 1).requests(rate_rps)
    chosen = SetSpec(policy, encoder_cache=True, prefix_cache=True)
    result = simulate(LIGHT, case, chosen, case_profile(case, FOLDER), requests)
    return Served(
        mean(meets(each, case.slo[each.source], 1.0) for each in result.records),
        mean(each.ttft_s or 0.0 for each in result.records),
        mean(each.tpot_s or 0.0 for each in result.records),
        result.num_switches,
    )


@pytest.mark.parametrize(("text_share", "rate_rps"), [(0.5, 1.0), (0.5, 4.0), (0.0, 1.0), (0.0, 3.0)])
def test_with_pictures_at_light_load_it_is_as_good_as_the_best(text_share: float, rate_rps: float) -> None:
    emp = served("emp", "light", rate_rps, text_share=text_share)
    fixed = [served(policy, "light", rate_rps, text_share=text_share) for policy in FIXED]
    assert emp.attained >= max(each.attained for each in fixed) / WITHIN
    assert emp.ttft_s <= WITHIN * min(each.ttft_s for each in fixed)
    assert emp.tpot_s <= WITHIN * min(each.tpot_s for each in fixed)
    assert emp.num_switches == 0


@pytest.mark.parametrize("rate_rps", [16.0, 64.0])
def test_text_alone_is_served_as_by_the_best(rate_rps: float) -> None:
    """By the targets; in the mean, as by coupled instances."""
    emp = served("emp", "text only", rate_rps)
    fixed = [served(policy, "text only", rate_rps) for policy in FIXED]
    assert emp.attained >= max(each.attained for each in fixed) / WITHIN
    assert emp.ttft_s <= WITHIN * fixed[0].ttft_s
    assert emp.tpot_s <= WITHIN * fixed[0].tpot_s
    assert emp.num_switches == 0
    print(emp, fixed)
