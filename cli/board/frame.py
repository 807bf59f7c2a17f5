"""All that one frame shows, from a handful of calls."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from cli.percentiles import Percentiles, percentiles_of
from elasticmm_client.admin import AdminClient
from elasticmm_client.caches import ClusterCache
from elasticmm_client.errors import InvalidRequest
from elasticmm_client.plan import ClusterPlan, Decision
from elasticmm_client.recent import RecentRequests
from elasticmm_client.shadow import ShadowReport
from elasticmm_client.slo import SloReport
from elasticmm_client.status import ClusterStatus
from elasticmm_client.trial import TrialReport

WINDOW_S = 60.0
_NUM_DECISIONS = 8
_NUM_REQUESTS = 500


@dataclass(frozen=True, slots=True)
class Frame:
    address: str
    status: ClusterStatus
    plan: ClusterPlan
    cache: ClusterCache
    recent: RecentRequests
    decisions: tuple[Decision, ...]  # about what instances play, oldest first
    slo: SloReport
    shadow: ShadowReport | None  # None: no policy set is in the shadow
    shadow_decisions: tuple[Decision, ...]  # its own, as above

    @property
    def trial(self) -> TrialReport | None:
        """None: none runs."""
        return self.slo.trial

    @property
    def percentiles(self) -> tuple[Percentiles, ...]:
        return percentiles_of(self.recent, WINDOW_S)

    def to_json(self) -> dict[str, Any]:
        """Requests only as sums; `trace` has each."""
        return {
            "address": self.address,
            "status": dataclasses.asdict(self.status),
            "plan": dataclasses.asdict(self.plan),
            "cache": dataclasses.asdict(self.cache),
            "window_s": WINDOW_S,
            "percentiles": [
                {**dataclasses.asdict(each), "attained": each.attained} for each in self.percentiles
            ],
            "decisions": [dataclasses.asdict(each) for each in self.decisions],
            "trial": None if self.trial is None else dataclasses.asdict(self.trial),
            "shadow": None if self.shadow is None else self._shadow_json(self.shadow),
        }

    def _shadow_json(self, report: ShadowReport) -> dict[str, Any]:
        return {
            **dataclasses.asdict(report),
            "differing_share": report.differing_share,
            "decisions": [dataclasses.asdict(each) for each in self.shadow_decisions],
        }


def take_frame(address: str, admin: AdminClient) -> Frame:
    """Raises ElasticMMError."""
    shadow, shadow_decisions = _shadow_of(admin)
    return Frame(
        address=address,
        status=admin.status(),
        plan=admin.plan(),
        cache=admin.cache(),
        recent=admin.recent(_NUM_REQUESTS),
        decisions=admin.why(None, _NUM_DECISIONS, dispatches=False),
        slo=admin.slo_report(),
        shadow=shadow,
        shadow_decisions=shadow_decisions,
    )


def _shadow_of(admin: AdminClient) -> tuple[ShadowReport | None, tuple[Decision, ...]]:
    """None where there is none, or it ended meanwhile."""
    try:
        return admin.shadow_report(), admin.why(None, _NUM_DECISIONS, dispatches=False, of_shadow=True)
    except InvalidRequest:
        return None, ()
