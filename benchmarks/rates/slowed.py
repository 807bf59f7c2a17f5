"""The simulator with everything slowed as on a live cluster of slowed devices.

Policies keep their own time: ticks, dwells and forecasts take real seconds, on both sides. What users bear
does not: targets, and for how long those yield who are late in any case, are as many times longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.elasticity.emulated import slowed
from benchmarks.elasticity.simulating import outcome_of
from cli.load.outcomes import Outcome
from core.encode_order import SLICE_S
from core.profile_file import load_profile
from simulator.scenario import CaseSpec, Scenario, SetSpec, Target
from simulator.sweep import simulate
from simulator.workload.request import Request


@dataclass(frozen=True, slots=True)
class Simulated:
    """In seconds of the trace."""

    outcomes: tuple[Outcome, ...]
    num_switches: int


def simulate_slowed(
    scenario: Scenario, case: CaseSpec, chosen: SetSpec, trace: Sequence[Request], time_scale: float
) -> Simulated:
    """`scenario.cluster` is in real seconds. Slices of encoding are those of the device, as live."""
    profile = slowed(load_profile(case.profile), time_scale)
    slow = [replace(each, arrival_s=each.arrival_s * time_scale) for each in trace]
    cluster = replace(scenario.cluster, encode_slice_s=SLICE_S * time_scale)
    patient = replace(chosen, late_wait_s=chosen.late_wait_s * time_scale)
    result = simulate(replace(scenario, cluster=cluster), with_slow(case, time_scale), patient, profile, slow)
    indices = {each.request_id: index for index, each in enumerate(trace)}
    outcomes = tuple(outcome_of(each, indices).sped_up(time_scale) for each in result.records)
    return Simulated(outcomes, result.num_switches)


def with_slow(case: CaseSpec, by: float) -> CaseSpec:
    """With targets in real seconds."""
    slo = {source: Target(each.ttft_s * by, each.tpot_s * by) for source, each in case.slo.items()}
    return replace(case, slo=slo)
