"""What a policy set is: the one interface between policies and what drives them.

driver (dispatcher or simulator)                    Scheduler
a request, report or instance came or went  ──►  place, until it says None
every tick_s                                ──►  plan: what every instance should play
what was measured                           ──►  note_step, note_encode, note_first_token, note_finished
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from coordinator.policy.books import Books
from coordinator.policy.decisions import DecisionRing
from coordinator.policy.plan import Plan
from coordinator.policy.view import Placement
from coordinator.policy.work import Work
from core.costs import StepShape
from core.stages import ModalityGroup

LATE_WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Slo:
    """Targets in seconds; what a request must meet to count as good."""

    ttft_s: float
    tpot_s: float
    multimodal_ttft_s: float | None = None  # of requests with media; None: the same
    late_wait_s: float = LATE_WAIT_S  # after so long, who is late in any case goes first again

    def group_ttft_s(self, group: ModalityGroup) -> float:
        """For SHARED, where both are served, the stricter one."""
        if self.multimodal_ttft_s is None or group is ModalityGroup.TEXT:
            return self.ttft_s
        if group is ModalityGroup.SHARED:
            return min(self.ttft_s, self.multimodal_ttft_s)
        return self.multimodal_ttft_s


class Scheduler(Protocol):
    """Pure but for its own memory: no I/O, no wall clock, the same answers for the same history."""

    tick_s: float
    decisions: DecisionRing

    def place(self, books: Books, now_s: float) -> Placement | None:
        """The next waiting request to dispatch now, or None. The driver applies it and asks again."""
        ...

    def plan(self, books: Books, now_s: float) -> Plan:
        """The wanted plan; the same version as before where nothing changes."""
        ...

    def note_arrival(self, work: Work, now_s: float) -> None: ...

    def note_step(self, instance_id: str, shape: StepShape, seconds: float) -> None: ...

    def note_encode(self, instance_id: str, num_tokens: int, seconds: float) -> None: ...

    def note_first_token(self, work: Work, ttft_s: float) -> None: ...

    def note_finished(self, work: Work, tpot_s: float) -> None: ...
