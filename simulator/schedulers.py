"""Policy sets by name, straight from the coordinator."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.policy.pieces import pieces_without
from coordinator.policy.scheduler import Scheduler, Slo
from coordinator.policy.sets import POLICY_SETS, make_scheduler
from coordinator.policy.warmth import WarmthSource
from core.profile import Profile


def check_policy(name: str, without: Sequence[str]) -> None:
    """Raises ValueError naming the sets or pieces there are."""
    if name not in POLICY_SETS:
        raise ValueError(f"policy {name!r} is not one of {', '.join(POLICY_SETS)}")
    pieces_without(without)
    if without and name != "emp":
        raise ValueError(f"policy {name!r} has no pieces to switch off")


def build_scheduler(
    name: str,
    without: Sequence[str],
    profile: Profile,
    slo: Slo,
    warmth: WarmthSource | None = None,
) -> Scheduler:
    return make_scheduler(name, profile, slo, without=without, warmth=warmth)
