"""Two policy sets side by side, and how far they differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coordinator.policy.seat import Arm
from coordinator.slo.intervals import (
    Estimate,
    difference,
    inverse,
    proportion,
    quantile,
    rate,
    sample_quantile,
)
from coordinator.slo.verdict import Verdict

_Figure = tuple[float | None, Estimate | None]  # a value, and its limits where enough was measured
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
    ttft_s: tuple[float, ...]  # of its newest finished requests, ascending
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
        """In the order in which they are shown."""
        of_a, of_b = (self._figures(arm) for arm in self.arms)
        return tuple(_measure(name, a, of_b[name]) for name, a in of_a.items())

    def _figures(self, arm: ArmReport) -> dict[str, _Figure]:
        found = {"attainment": _figure(proportion(arm.num_good, arm.num_calls))}
        for kind, samples in (("ttft", arm.ttft_s), ("tpot", arm.tpot_s)):
            found |= {
                f"{kind}_{name}_s": (sample_quantile(samples, part), quantile(samples, part))
                for name, part in _QUANTILES.items()
            }
        found["goodput_rps"] = _figure(rate(arm.num_good, self.watched_s))
        found["goodput_per_instance_rps"] = _figure(rate(arm.num_good, arm.instance_s))
        per_thousand = inverse(rate(arm.num_finished, arm.instance_s), 1000.0)
        found["instance_s_per_thousand"] = _figure(per_thousand)
        return found


def _figure(estimate: Estimate | None) -> _Figure:
    return None if estimate is None else estimate.value, estimate


def _measure(name: str, of_a: _Figure, of_b: _Figure) -> Measure:
    (a, a_limits), (b, b_limits) = of_a, of_b
    if a_limits is None or b_limits is None:
        return Measure(name, a, b, None)
    return Measure(name, a, b, difference(b_limits, a_limits))
