"""Two policy sets side by side, and how far they differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coordinator.intervals import Estimate, difference, inverse, proportion, quantile, rate
from coordinator.policy.seat import Arm
from coordinator.slo import Verdict

_QUANTILES = {"p50": 0.50, "p95": 0.95}


@dataclass(frozen=True, slots=True)
class ArmReport:
    """One arm since the start. Only its own requests that it served itself are judged."""

    arm: Arm
    policy: str
    instance_ids: tuple[str, ...]  # now
    verdicts: Mapping[Verdict, int]  # each is there
    num_crossed: int  # its requests that the other arm had to serve
    instance_s: float
    ttft_s: tuple[float, ...]  # of its newest finished requests, in order of their ends
    tpot_s: tuple[float, ...]

    @property
    def num_calls(self) -> int:
        return sum(self.verdicts.values())

    @property
    def num_good(self) -> int:
        return self.verdicts[Verdict.GOOD]

    @property
    def num_finished(self) -> int:
        return self.num_calls - self.verdicts[Verdict.UNSERVED]


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure of both arms; `change` is B minus A with its interval. None: too little was measured."""

    name: str  # unit in the name
    a: float | None
    b: float | None
    change: Estimate | None


@dataclass(frozen=True, slots=True)
class TrialReport:
    experiment: str
    watched_s: float
    share: float  # of the instances that B was to get
    arms: tuple[ArmReport, ArmReport]  # A and B

    def measures(self) -> tuple[Measure, ...]:
        """In the order in which they are shown; sorts all samples."""
        of_a, of_b = (self._estimates(arm) for arm in self.arms)
        return tuple(_measure(name, a, of_b[name]) for name, a in of_a.items())

    def _estimates(self, arm: ArmReport) -> dict[str, Estimate | None]:
        found = {"attainment": proportion(arm.num_good, arm.num_calls)}
        for kind, samples in (("ttft", sorted(arm.ttft_s)), ("tpot", sorted(arm.tpot_s))):
            found |= {f"{kind}_{name}_s": quantile(samples, part) for name, part in _QUANTILES.items()}
        found["goodput_rps"] = rate(arm.num_good, self.watched_s)
        found["goodput_per_instance_rps"] = rate(arm.num_good, arm.instance_s)
        found["instance_s_per_thousand"] = inverse(rate(arm.num_finished, arm.instance_s), 1000.0)
        return found


def _measure(name: str, a: Estimate | None, b: Estimate | None) -> Measure:
    return Measure(
        name,
        None if a is None else a.value,
        None if b is None else b.value,
        None if a is None or b is None else difference(b, a),
    )
