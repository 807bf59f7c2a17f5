"""Trying schedules of forms, and policy sets, on one case of a scenario."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from math import floor, inf
from typing import NamedTuple

from benchmarks.plans.phases import Phase, phases_of, requests_of
from benchmarks.plans.scheduled import ScheduledForms
from benchmarks.plans.watched import GivenUpError, Watched
from coordinator.policy.cost_model import CostModel
from coordinator.policy.costing import Costing
from coordinator.policy.decisions import DecisionRing
from coordinator.policy.emp_dispatch import emp_dispatch
from coordinator.policy.forms import Forms, forms_name
from coordinator.policy.scheduler import Scheduler
from core.profile import Profile
from simulator.metrics import meets
from simulator.result import RunResult
from simulator.scenario import CaseSpec, Scenario, SetSpec, aims
from simulator.schedulers import build_scheduler
from simulator.sweep import simulate_under
from simulator.workload.request import Request

Schedule = tuple[Forms, ...]  # one per phase


class Score(NamedTuple):
    """More is better: the share of requests within both targets, then how far first tokens are."""

    attained: float
    promptness: float  # the mean of first-token time over its target, negative


GIVEN_UP = Score(-1.0, -inf)  # of a run that was not taken to its end


class Trial:
    """One case, profile and seed; `requests` makes its workload at a rate, the same one every time.

    Where `least` is given, a run is given up once it cannot attain that share any more.
    """

    def __init__(
        self,
        scenario: Scenario,
        case: CaseSpec,
        engine: SetSpec,
        profile: Profile,
        requests: Callable[[float], Sequence[Request]],
    ) -> None:
        """`engine`: the set whose discipline and caches the schedules run on."""
        self.scenario = scenario
        self.num_runs = self.num_given_up = 0
        self._case = case
        self._engine = engine
        self._profile = profile
        self._known: dict[tuple[object, ...], tuple[float, Score]] = {}
        self._requests = lru_cache(maxsize=2)(requests)
        self.phases = lru_cache(maxsize=2)(self._phases)
        self._part = lru_cache(maxsize=2)(self._part_requests)

    def score(self, schedule: Schedule, rate_rps: float, least: float = 0.0) -> Score:
        """Of the whole run; one that is known is not run again."""
        key = (rate_rps, *map(forms_name, schedule))
        known = self._known.get(key)
        if known is None or (known[1] is GIVEN_UP and least < known[0]):
            starts_s = [phase.start_s for phase in self.phases(rate_rps)]
            score = self._score(starts_s, schedule, self._requests(rate_rps), least)
            known = self._known[key] = least, score
        return known[1]

    def part_score(self, forms: Forms, rate_rps: float, phase: int, most: int, least: float = 0.0) -> Score:
        """Of the first `most` requests of a phase alone, on a cluster that is empty before."""
        return self._score([0.0], (forms,), self._part(rate_rps, phase)[:most], least)

    def set_score(self, policy_set: SetSpec, rate_rps: float, least: float = 0.0) -> Score:
        """Of a policy set on its own engine."""
        slo = aims(self._case)
        scheduler = build_scheduler(policy_set.policy_name, policy_set.without, self._profile, slo)
        return self._run(scheduler, policy_set, self._requests(rate_rps), least)

    def _phases(self, rate_rps: float) -> tuple[Phase, ...]:
        return phases_of(self._case.workload, self._requests(rate_rps), self._profile)

    def _part_requests(self, rate_rps: float, phase: int) -> list[Request]:
        """Of one phase, with times from its beginning."""
        phases = self.phases(rate_rps)
        start_s = phases[phase].start_s
        part = requests_of(phases, phase, self._requests(rate_rps))
        return [replace(each, arrival_s=each.arrival_s - start_s) for each in part]

    def _score(
        self, starts_s: Sequence[float], schedule: Schedule, requests: Sequence[Request], least: float
    ) -> Score:
        decisions = DecisionRing()
        slo = aims(self._case)
        dispatch = emp_dispatch(Costing(CostModel(self._profile), slo.tpot_s), slo, decisions)
        scheduler = ScheduledForms(starts_s, schedule, dispatch, decisions)
        return self._run(scheduler, self._engine, requests, least)

    def _run(self, scheduler: Scheduler, engine: SetSpec, requests: Sequence[Request], least: float) -> Score:
        targets = {each.request_id: self._case.slo[each.source] for each in requests}
        # Rounding must not give up what attains exactly `least`.
        watched = Watched(scheduler, targets, floor((1 - least) * len(requests) + 1e-6))
        self.num_runs += 1
        try:
            tpot_s = aims(self._case).tpot_s
            result = simulate_under(watched, self.scenario, engine, self._profile, requests, tpot_s=tpot_s)
        except GivenUpError:
            self.num_given_up += 1
            return GIVEN_UP
        return self._scored(result)

    def _scored(self, result: RunResult) -> Score:
        slo, records = self._case.slo, result.records
        attained = sum(meets(each, slo[each.source], 1.0) for each in records)
        late = sum((each.ttft_s or 0.0) / slo[each.source].ttft_s for each in records)
        count = max(1, len(records))
        return Score(attained / count, -late / count)
