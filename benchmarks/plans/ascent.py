"""The search for the schedule of forms that bears most."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.plans.family import coupled, family
from benchmarks.plans.trial import Schedule, Score, Trial
from coordinator.policy.forms import Forms, forms_name

# A form is tried on so many of a phase's first requests, and so many forms go on to the next round.
ROUNDS = ((200, 48), (800, 12), (2400, 4))
MOST_PASSES = 3  # over all coordinates; far fewer are usual
RAISE = 1.03  # from one rate to the next, as long as the best schedule still attains enough


@dataclass(frozen=True, slots=True)
class Best:
    """Of the search at one rate."""

    rate_rps: float
    constant: Schedule  # of one form
    schedule: Schedule


def climb(trial: Trial, rate_rps: float, most_rps: float) -> list[Best]:
    """The best at rising rates, up to the first at which not even the best attains the scenario's share, or
    to `most_rps`. What is best in an overload is not what bears the highest rate.

    Forms are screened at the first rate only.
    """
    short = shortlists(trial, rate_rps)
    found = [search(trial, rate_rps, short)]
    while (
        trial.score(found[-1].schedule, found[-1].rate_rps).attained >= trial.scenario.attainment
        and found[-1].rate_rps < most_rps
    ):
        found.append(search(trial, RAISE * found[-1].rate_rps, short, found[-1]))
    return found


def shortlists(trial: Trial, rate_rps: float) -> dict[bool, list[Forms]]:
    """Forms for burst phases and for the others, best first, by the first phase of the kind alone."""
    phases = trial.phases(rate_rps)
    first = {phase.is_burst: at for at, phase in reversed(list(enumerate(phases)))}
    return {is_burst: screened(trial, rate_rps, at) for is_burst, at in first.items()}


def search(
    trial: Trial, rate_rps: float, short: Mapping[bool, Sequence[Forms]], before: Best | None = None
) -> Best:
    """Forms of the short lists as constants, then coordinate ascent: all phases of a kind together, then each
    on its own. `before`: what was best at a lower rate.
    """
    kinds = [phase.is_burst for phase in trial.phases(rate_rps)]
    forms = _distinct(form for each in short.values() for form in each)
    constants = [(form,) * len(kinds) for form in forms]
    constant = best_of(trial, rate_rps, [before.constant, *constants] if before else constants)
    starts = [constant, before.schedule if before else tuple(short[kind][0] for kind in kinds)]
    together = [([at for at, each in enumerate(kinds) if each is kind], short[kind]) for kind in short]
    best = best_of(trial, rate_rps, [ascended(trial, rate_rps, start, together) for start in starts])
    alone = [([at], [*short[kind][:2], *best]) for at, kind in enumerate(kinds)]
    return Best(rate_rps, constant, ascended(trial, rate_rps, best, alone))


def screened(
    trial: Trial, rate_rps: float, phase: int, rounds: Sequence[tuple[int, int]] = ROUNDS
) -> list[Forms]:
    """The best forms for a phase alone, best first, and the coupled one.

    Drops what attains less than half of what the best does, and keeps fewer from round to round.
    """
    instances = trial.scenario.cluster.instances
    left: Sequence[Forms] = family(instances)
    for num_requests, most in rounds:
        scores: list[tuple[Score, int]] = []
        for at, form in enumerate(left):
            score = trial.part_score(form, rate_rps, phase, num_requests, _least(scores, most))
            scores.append((score, -at))
            scores.sort(reverse=True)
        left = [left[-at] for score, at in scores[:most] if score.attained >= scores[0][0].attained / 2]
    return _distinct([*left, coupled(instances)])


def _least(scores: Sequence[tuple[Score, int]], most: int) -> float:
    """What one more has to attain to be among the best `most`; scores are in order, the best first."""
    if not scores:
        return 0.0
    last = scores[most - 1][0].attained if len(scores) >= most else 0.0
    return max(last, scores[0][0].attained / 2, 0.0)


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
            schedule = best_of(trial, rate_rps, options)
        if schedule == before:
            break
    return schedule


def best_of(trial: Trial, rate_rps: float, schedules: Sequence[Schedule]) -> Schedule:
    """The first of the best ones; those that fall behind are given up."""
    best = schedules[0]
    score = trial.score(best, rate_rps)
    for each in schedules[1:]:
        other = trial.score(each, rate_rps, score.attained)
        if other > score:
            best, score = each, other
    return best


def _with(schedule: Schedule, places: Iterable[int], form: Forms) -> Schedule:
    changed: Mapping[int, Forms] = dict.fromkeys(places, form)
    return tuple(changed.get(at, present) for at, present in enumerate(schedule))


def _distinct(forms: Iterable[Forms]) -> list[Forms]:
    return list({forms_name(form): form for form in forms}.values())
