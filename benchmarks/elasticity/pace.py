"""How fast the devices of a live cluster were while something ran on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from core.costs import StepCosts
from core.profile import Profile
from elasticmm_client.plan import ClusterPlan, PlannedInstance
from elasticmm_client.plan import Pace as Seconds


@dataclass(frozen=True, slots=True)
class Pace:
    """How many times the profile's time the work took, over all instances; 1 where there was none.

    Steps with prompts are bound by arithmetic, as a rule, those that only decode by memory.
    """

    decodes: float = 1.0
    prefills: float = 1.0
    encodes: float = 1.0

    def of(self, profile: Profile) -> Profile:
        """The profile of a device as fast as this; preparing pictures keeps the pace of encoding them."""
        step, encode = profile.step, profile.encode
        return replace(
            profile,
            step=StepCosts(
                step.fixed_s * self.decodes,
                step.bytes.scaled(self.decodes),
                step.flops.scaled(self.prefills),
            ),
            encode=replace(encode.scaled(self.encodes), per_pixel_s=encode.per_pixel_s * self.encodes),
        )


def pace_between(before: ClusterPlan, after: ClusterPlan) -> Pace:
    """Of the work that was done between the two; instances that came later count in full."""
    return Pace(
        _factor(before, after, lambda each: each.decodes),
        _factor(before, after, lambda each: each.prefills),
        _factor(before, after, lambda each: each.encodes),
    )


def _factor(before: ClusterPlan, after: ClusterPlan, seconds: Callable[[PlannedInstance], Seconds]) -> float:
    measured_s, profiled_s = (
        sum(getattr(seconds(each), name) for each in after.instances)
        - sum(getattr(seconds(each), name) for each in before.instances)
        for name in ("measured_s", "profiled_s")
    )
    return measured_s / profiled_s if profiled_s > 0 else 1.0
