"""Tries a second policy set on the running cluster, as admins say."""

from __future__ import annotations

from copy import deepcopy

from coordinator.errors import CannotTryError, InvalidFieldError
from coordinator.policy.books import Books
from coordinator.policy.cost_model import CostModel
from coordinator.policy.decisions import Decision
from coordinator.policy.scheduler import Scheduler, Slo
from coordinator.policy.sets import POLICY_SETS, make_scheduler
from coordinator.policy.trials.lineup import Lineup
from coordinator.policy.trials.shadow import Shadow
from coordinator.policy.trials.shadow_report import ShadowReport
from coordinator.policy.trials.time_share import TimeShare
from coordinator.policy.warmth import WarmthSource
from core.clock import Clock


class Trials:
    """One at a time, beside the set that the coordinator was started with. On the coordinator's loop."""

    def __init__(
        self,
        lineup: Lineup,
        books: Books,
        costs: CostModel,
        slo: Slo,
        clock: Clock,
        *,
        glance: WarmthSource | None,
    ) -> None:
        """`glance`: what caches hold, as one sees it who looks on; None: dispatch does not weigh it."""
        self._lineup = lineup
        self._books = books
        self._costs = costs
        self._slo = slo
        self._clock = clock
        self._glance = glance

    def start_shadow(self, policy: str) -> None:
        """Raises InvalidFieldError, CannotTryError."""
        scheduler = self._make(policy, self._glance)
        if self._lineup.shadow is not None:
            raise CannotTryError(f"{self._lineup.shadow.policy} is in the shadow already: stop it first")
        now_s, time = self._clock.now_s(), TimeShare(self._clock)
        self._lineup.shadow = Shadow(policy, scheduler, self._books, now_s, time=time)

    def stop_shadow(self) -> ShadowReport:
        """Its last report. Raises CannotTryError where there is none."""
        report = self.shadow_report()
        self._lineup.shadow = None
        return report

    def shadow_report(self) -> ShadowReport:
        """Raises CannotTryError where there is none."""
        return self._shadow().report(self._clock.now_s())

    def shadow_decisions(
        self, subject: str | None, limit: int | None, without: frozenset[str] = frozenset()
    ) -> tuple[Decision, ...]:
        """As Planner.why, of the shadow. Raises CannotTryError where there is none."""
        found = tuple(self._shadow().decisions.about(subject, without))
        return found if limit is None else found[-limit:]

    def _shadow(self) -> Shadow:
        if self._lineup.shadow is None:
            raise CannotTryError("no policy set is in the shadow: elasticmm shadow start SET")
        return self._lineup.shadow

    def _make(self, policy: str, warmth: WarmthSource | None) -> Scheduler:
        """Begins with what the acting set has learned of the costs, and learns apart from it."""
        if policy not in POLICY_SETS:
            raise InvalidFieldError("policy", f"{policy!r} is not one of {', '.join(POLICY_SETS)}")
        model = deepcopy(self._costs)
        return make_scheduler(policy, model.profile, self._slo, model=model, warmth=warmth)
