"""The search for the best schedule of forms at one rate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.plans.family import coupled, family
from benchmarks.plans.trial import Schedule, Trial
from coordinator.policy.forms import Forms, forms_name

# A form is tried on so many of a phase's first requests, and so many forms go on to the next round.
ROUNDS = ((200, 48), (800, 12), (2400, 4))
MOST_PASSES = 3  # over all coordinates; far fewer are usual


@dataclass(frozen=True, slots=True)
class Best:
    """At the rate of the search."""

    constant: Schedule  # of one form
    schedule: Schedule


def search(trial: Trial, rate_rps: float) -> Best:
    """Forms are screened for calm and burst phases apart; the best ones are tried as constants, then by
    coordinate ascent: all phases of a kind together, then each phase on its own.
    """
    phases = trial.phases(rate_rps)
    kinds = {
        kind: [at for at, phase in enumerate(phases) if phase.is_burst is kind] for kind in (True, False)
    }
    present = {kind: places for kind, places in kinds.items() if places}
    short = {kind: screened(trial, rate_rps, places[0]) for kind, places in present.items()}
    constants = [
        (form,) * len(phases) for form in _distinct(form for each in short.values() for form in each)
    ]
    constant = max(constants, key=lambda schedule: trial.score(schedule, rate_rps))
    apart = tuple(short[phase.is_burst][0] for phase in phases)
    together = [(places, short[kind]) for kind, places in present.items()]
    found = [ascended(trial, rate_rps, start, together) for start in (constant, apart)]
    best = max(found, key=lambda schedule: trial.score(schedule, rate_rps))
    alone = [([at], [*short[phase.is_burst][:2], *best]) for at, phase in enumerate(phases)]
    return Best(constant, ascended(trial, rate_rps, best, alone))


def screened(
    trial: Trial, rate_rps: float, phase: int, rounds: Sequence[tuple[int, int]] = ROUNDS
) -> list[Forms]:
    """The best forms for a phase alone, best first, and the coupled one.

    Drops what attains less than half of what the best does, and keeps fewer from round to round.
    """
    instances = trial.scenario.cluster.instances
    left = list(family(instances))
    for num_requests, most in rounds:
        scores = {forms_name(form): trial.part_score(form, rate_rps, phase, num_requests) for form in left}
        least = max(scores.values()).attained / 2
        left = sorted(left, key=lambda form, scores=scores: scores[forms_name(form)], reverse=True)  # type: ignore[misc]
        left = [form for form in left if scores[forms_name(form)].attained >= least][:most]
    return _distinct([*left, coupled(instances)])


def ascended(
    trial: Trial,
    rate_rps: float,
    schedule: Schedule,
    coordinates: Sequence[tuple[Sequence[int], Sequence[Forms]]],
) -> Schedule:
    """The best found by changing one coordinate at a time: phases that share a form, and forms to try."""
    for _ in range(MOST_PASSES):
        before = schedule
        for places, forms in coordinates:
            options = [schedule, *(_with(schedule, places, form) for form in forms)]
            schedule = max(options, key=lambda option: trial.score(option, rate_rps))
        if schedule == before:
            break
    return schedule


def _with(schedule: Schedule, places: Iterable[int], form: Forms) -> Schedule:
    changed: Mapping[int, Forms] = dict.fromkeys(places, form)
    return tuple(changed.get(at, present) for at, present in enumerate(schedule))


def _distinct(forms: Iterable[Forms]) -> list[Forms]:
    return list({forms_name(form): form for form in forms}.values())
