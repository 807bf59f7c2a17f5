"""How well the targets were met of late, what that took, and what caches spared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from coordinator.policy.scheduler import Slo
from coordinator.slo.verdict import Verdict
from core.stages import ModalityGroup


class PriorityClass(Enum):
    """Of all priorities: the report has few rows, whatever numbers clients choose."""

    LOW = "low"  # below 0
    NORMAL = "normal"  # 0
    HIGH = "high"  # above 0


def priority_class(priority: int) -> PriorityClass:
    if priority == 0:
        return PriorityClass.NORMAL
    return PriorityClass.HIGH if priority > 0 else PriorityClass.LOW


@dataclass(frozen=True, slots=True)
class CallClass:
    """Calls that are reported on together."""

    tenant: str  # or OTHER of tenant_labels
    group: ModalityGroup
    priority: PriorityClass


@dataclass(frozen=True, slots=True)
class ClassReport:
    """Calls of one class that count, by how they met the targets."""

    calls: CallClass
    verdicts: Mapping[Verdict, int]  # each is there

    @property
    def num_calls(self) -> int:
        return sum(self.verdicts.values())

    @property
    def attainment(self) -> float:
        """The part that met both targets, 0 to 1; there is a call."""
        return self.verdicts[Verdict.GOOD] / self.num_calls


@dataclass(frozen=True, slots=True)
class WindowReport:
    """The last `window_s`, of which `covered_s` were watched."""

    window_s: float
    covered_s: float
    classes: tuple[ClassReport, ...]  # those with calls, by tenant, group and priority
    num_finished: int
    prompt_tokens: int  # of the finished ones, as the next
    cached_tokens: int
    instance_s: float  # seconds of attached instances, summed over them
    saved_s: float  # device time that cache hits spared, by the instances' counters
    saved_bytes: int  # that were found in caches and not made again


@dataclass(frozen=True, slots=True)
class SloReport:
    """Windows from the shortest to the longest."""

    slo: Slo
    price_per_hour: float | None  # of one instance, in US dollars; None: the profile has none
    windows: tuple[WindowReport, ...]
