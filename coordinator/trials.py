"""Tries a second policy set on the running cluster, as admins say."""

from __future__ import annotations

import logging
from copy import deepcopy
from typing import TYPE_CHECKING

from coordinator.cache.glance import WarmthGlance
from coordinator.errors import CannotTryError, InvalidFieldError
from coordinator.policy.books import Books
from coordinator.policy.cost_model import CostModel
from coordinator.policy.decisions import Decision, DecisionRing
from coordinator.policy.scheduler import Scheduler, Slo
from coordinator.policy.seat import Arm
from coordinator.policy.sets import POLICY_SETS, make_scheduler
from coordinator.policy.trials.lineup import Lineup
from coordinator.policy.trials.marked_ring import MarkedRing
from coordinator.policy.trials.shadow import Shadow
from coordinator.policy.trials.shadow_report import ShadowReport
from coordinator.policy.trials.shares import TrialWish
from coordinator.policy.trials.time_share import TimeShare
from coordinator.policy.trials.trial import Trial, TrialError
from coordinator.policy.warmth import WarmthSource
from coordinator.slo.arm_books import ArmBooks
from coordinator.slo.arm_report import TrialReport
from core.clock import Clock
from core.ids import new_request_id

if TYPE_CHECKING:
    from coordinator.server import Coordinator

log = logging.getLogger(__name__)


def make_trials(coordinator: Coordinator) -> Trials:
    """With what the configuration wants to be tried from the start."""
    config, books = coordinator.config, coordinator.live.books
    trials = Trials(
        config.policy,
        coordinator.scheduler,
        books=books,
        costs=coordinator.costs,
        slo=coordinator.slo,
        clock=coordinator.clock,
        warmth=coordinator.warmth if config.cache_aware else None,
        glance=WarmthGlance(coordinator.warmth) if config.cache_aware else None,
        arms=coordinator.watch.arms,
    )
    if config.shadow:
        trials.start_shadow(config.shadow)
    if config.trial is not None:
        trials.start_trial(config.trial)
    return trials


class Trials:
    """One at a time, beside the set that the coordinator was started with. On the coordinator's loop."""

    def __init__(
        self,
        policy: str,
        lineup: Lineup,
        *,
        books: Books,
        costs: CostModel,
        slo: Slo,
        clock: Clock,
        warmth: WarmthSource | None,
        glance: WarmthSource | None,
        arms: ArmBooks,
    ) -> None:
        """`policy`: name of the main set. `warmth`: what caches hold, `glance`: the same, as one sees it who
        looks on; None: dispatch does not weigh it.
        """
        self._policy = policy
        self._lineup = lineup
        self._books = books
        self._costs = costs
        self._slo = slo
        self._clock = clock
        self._warmth = warmth
        self._glance = glance
        self._arms = arms

    def start_shadow(self, policy: str) -> None:
        """Raises InvalidFieldError, CannotTryError."""
        scheduler = self._make(policy, self._glance)
        self._check_free()
        now_s, time = self._clock.now_s(), TimeShare(self._clock)
        self._lineup.shadow = Shadow(policy, scheduler, self._books, now_s, time=time)
        log.info("shadow: %s beside %s", policy, self._policy)

    def stop_shadow(self) -> ShadowReport:
        """Its last report. Raises CannotTryError where there is none."""
        report = self.shadow_report()
        self._lineup.shadow = None
        log.info("shadow: %s ended", report.policy)
        return report

    def shadow_report(self) -> ShadowReport:
        """Raises CannotTryError where there is none."""
        return self._shadow().report(self._clock.now_s())

    def shadow_report_if_any(self) -> ShadowReport | None:
        return None if self._lineup.shadow is None else self.shadow_report()

    def shadow_decisions(
        self, subject: str | None, limit: int | None, without: frozenset[str] = frozenset()
    ) -> tuple[Decision, ...]:
        """As Planner.why, of the shadow. Raises CannotTryError where there is none."""
        found = tuple(self._shadow().decisions.about(subject, without))
        return found if limit is None else found[-limit:]

    def start_trial(self, wish: TrialWish, experiment: str = "") -> str:
        """Returns the experiment's id, by which requests are divided; a new one where none is given.

        Raises InvalidFieldError, CannotTryError.
        """
        scheduler = self._make(wish.policy, self._warmth, MarkedRing(self._lineup.decisions, Arm.B))
        self._check_free()
        sets = {Arm.A: (self._policy, self._lineup.main), Arm.B: (wish.policy, scheduler)}
        name = experiment or new_request_id()
        try:
            trial = Trial(name, self._books, sets, wish.share, self._clock.now_s())
        except TrialError as error:
            raise CannotTryError(str(error)) from None
        self._lineup.begin(trial)
        self._arms.begin(trial)
        log.info("experiment %s: %s on %.0f%% beside %s", name, wish.policy, wish.share * 100, self._policy)
        return name

    def stop_trial(self) -> TrialReport:
        """All instances are the main set's again. Raises CannotTryError where none runs."""
        report = self.trial_report()
        self._lineup.end_trial()
        self._arms.end()
        log.info("experiment %s: ended", report.experiment)
        return report

    def trial_report(self) -> TrialReport:
        """Raises CannotTryError where none runs."""
        report = self._arms.report()
        if report is None:
            raise CannotTryError("no experiment runs: elasticmm ab start SET")
        return report

    def trial_report_if_any(self) -> TrialReport | None:
        return self._arms.report()

    def _check_free(self) -> None:
        if self._lineup.shadow is not None:
            raise CannotTryError(f"{self._lineup.shadow.policy} is in the shadow already: stop it first")
        if self._lineup.trial is not None:
            raise CannotTryError(f"the experiment {self._lineup.trial.experiment} runs: stop it first")

    def _shadow(self) -> Shadow:
        if self._lineup.shadow is None:
            raise CannotTryError("no policy set is in the shadow: elasticmm shadow start SET")
        return self._lineup.shadow

    def _make(
        self, policy: str, warmth: WarmthSource | None, decisions: DecisionRing | None = None
    ) -> Scheduler:
        """Begins with what the acting set has learned of the costs, and learns apart from it."""
        if policy not in POLICY_SETS:
            raise InvalidFieldError("policy", f"{policy!r} is not one of {', '.join(POLICY_SETS)}")
        model = deepcopy(self._costs)
        return make_scheduler(
            policy, model.profile, self._slo, model=model, warmth=warmth, decisions=decisions
        )
