"""What requests take on an empty cluster: where targets come from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median

from simulator.scenario import CaseSpec, Scenario, SetSpec, Target, case_profile
from simulator.sweep import simulate
from simulator.workload.spec import Workload

GAP_S = 60.0
MOST_REQUESTS = 400


def unloaded_targets(
    scenario: Scenario,
    case: CaseSpec,
    policy_set: SetSpec,
    folders: tuple[Path, Path],
    *,
    times: float,
    seed: int = 1,
) -> dict[str, Target]:
    """`times` the median TTFT and TPOT by source, each request alone on the cluster and bursts left out.

    `folders` are those of the scenario and of trace files.
    """
    profile = case_profile(case, folders[0])
    calm = replace(case.workload, bursts=())
    requests = Workload(calm, folders[1], seed).requests(scenario.rates(case)[0])
    alone = [replace(each, arrival_s=GAP_S * at) for at, each in enumerate(requests[:MOST_REQUESTS])]
    result = simulate(scenario, case, policy_set, profile, alone)
    targets = {}
    for source in sorted({each.source for each in result.records}):
        own = [each for each in result.records if each.source == source]
        ttft_s = median(each.ttft_s for each in own if each.ttft_s is not None)
        tpot_s = median(each.tpot_s for each in own if each.tpot_s is not None)
        targets[source] = Target(times * ttft_s, times * tpot_s)
    return targets
