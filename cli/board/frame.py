"""All that one frame shows, from a handful of calls."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from cli.percentiles import Percentiles, percentiles_of
from elasticmm_client.admin import AdminClient
from elasticmm_client.caches import ClusterCache
from elasticmm_client.plan import ClusterPlan, Decision
from elasticmm_client.recent import RecentRequests
from elasticmm_client.status import ClusterStatus

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
        }


def take_frame(address: str, admin: AdminClient) -> Frame:
    """Raises ElasticMMError."""
    return Frame(
        address=address,
        status=admin.status(),
        plan=admin.plan(),
        cache=admin.cache(),
        recent=admin.recent(_NUM_REQUESTS),
        decisions=admin.why(None, _NUM_DECISIONS, dispatches=False),
    )
