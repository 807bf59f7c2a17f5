"""How often, and in what, a policy set in the shadow decides otherwise than the acting one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from coordinator.policy.plan import Assignment
from coordinator.policy.view import Placement


class Difference(Enum):
    """Of one dispatch."""

    NONE = "same"
    ELSEWHERE = "elsewhere"  # another instance for a stage at least
    HELD = "held"  # the shadow would let it wait


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """Since the shadow's start. Seconds are means over dispatches for which both sets predicted some."""

    policy: str
    watched_s: float
    dispatches: Mapping[Difference, int]  # each is there
    num_skipped: int  # dispatches that were not compared, for want of time
    num_other_encode: int  # of those elsewhere
    num_other_prefill: int
    num_other_decode: int
    num_predicted: int
    acting_first_s: float | None  # until the first token, as the acting set predicted; None: nobody did
    shadow_first_s: float | None
    num_acting_changes: int  # of what an instance was to play
    num_shadow_changes: int
    wanted: Mapping[str, tuple[Assignment, Assignment]]  # by instance: acting and shadow, where they differ
    spent_s: float | None  # by the shadow; None: that was not measured
    failure: str  # why it was stopped before its time; empty: it was not

    @property
    def num_compared(self) -> int:
        return sum(self.dispatches.values())

    @property
    def differing_share(self) -> float | None:
        """Of the dispatches compared, 0 to 1; None without any."""
        compared = self.num_compared
        return 1 - self.dispatches[Difference.NONE] / compared if compared else None


@dataclass(slots=True)
class DispatchTally:
    """Dispatches of the acting set beside what the shadow says."""

    differences: Counter[Difference] = field(default_factory=Counter)
    num_skipped: int = 0
    others: Counter[str] = field(default_factory=Counter)  # by stage
    num_predicted: int = 0
    acting_s: float = 0.0
    shadow_s: float = 0.0

    def note(self, acting: Placement, shadow: Placement | None) -> Difference:
        if shadow is None:
            difference = Difference.HELD
        else:
            others = [
                stage
                for stage in ("encode", "prefill", "decode")
                if getattr(acting, stage) != getattr(shadow, stage)
            ]
            self.others.update(others)
            difference = Difference.ELSEWHERE if others else Difference.NONE
        self.differences[difference] += 1
        return difference

    def note_predictions(self, acting_s: float | None, shadow_s: float | None) -> None:
        if acting_s is not None and shadow_s is not None:
            self.num_predicted += 1
            self.acting_s += acting_s
            self.shadow_s += shadow_s


class PlanTally:
    """Counts how often one set's plan changed what an instance was to play."""

    def __init__(self) -> None:
        self.wanted: dict[str, Assignment] = {}
        self.num_changes = 0

    def note(self, wanted: Mapping[str, Assignment], present: Mapping[str, Assignment]) -> None:
        """A plan, and what those there are play; an instance without an opinion plays on."""
        meant = {name: wanted.get(name, plays) for name, plays in present.items()}
        self.num_changes += sum(to != self.wanted.get(name, present[name]) for name, to in meant.items())
        self.wanted = meant
