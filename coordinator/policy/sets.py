"""Policy sets by name: what a coordinator or a simulation runs."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.policy.cost_model import CostModel
from coordinator.policy.costing import Costing
from coordinator.policy.decisions import DecisionRing
from coordinator.policy.dispatch import Dispatch
from coordinator.policy.emp import EmpScheduler
from coordinator.policy.fixed import FixedScheduler
from coordinator.policy.layouts import TEXT_SHARES, coupled_layout, present_layout, static_layout
from coordinator.policy.pieces import ALL_PIECES, pieces_without
from coordinator.policy.routing import Routing
from coordinator.policy.scheduler import Scheduler, Slo
from coordinator.policy.turns import ArrivalTurns, FairTurns
from coordinator.policy.warmth import WarmthSource
from core.profile import Profile

POLICY_SETS = ("emp", "coupled", "replicas", *(f"static:{split}" for split in TEXT_SHARES), "fixed")


def make_scheduler(
    name: str,
    profile: Profile,
    slo: Slo,
    *,
    without: Iterable[str] = (),
    tick_s: float = 0.25,
    reshape_s: float = 1.0,
    ring_size: int = 1024,
    model: CostModel | None = None,
    warmth: WarmthSource | None = None,
    decisions: DecisionRing | None = None,
) -> Scheduler:
    """The policy set of that name, one of POLICY_SETS; `without` names pieces of emp that are switched off.

    `model` is the profile's, where others are to see its corrections. `warmth` says what caches hold, which
    all but "replicas" weigh; None: nothing is known of caches. `decisions` None: a ring of its own.

    Raises ValueError naming the sets or pieces there are.
    """
    if name not in POLICY_SETS:
        raise ValueError(f"policy: {name!r} is not one of {', '.join(POLICY_SETS)}")
    costing = Costing(model or CostModel(profile), slo.tpot_s)
    decisions = DecisionRing(ring_size) if decisions is None else decisions
    pieces = pieces_without(without)
    if name == "emp":
        return EmpScheduler(
            costing, slo, decisions, pieces, tick_s=tick_s, reshape_s=reshape_s, warmth=warmth
        )
    if pieces != ALL_PIECES:
        raise ValueError(f"pieces: {name} has none that could be switched off")
    if name == "replicas":
        return FixedScheduler(coupled_layout, Routing(decisions), decisions, tick_s)
    if name == "coupled":
        central = Dispatch(costing, ArrivalTurns(), decisions, together=True, warmth=warmth)
        return FixedScheduler(coupled_layout, central, decisions, tick_s)
    dispatch = Dispatch(costing, FairTurns(), decisions, warmth=warmth)
    if name == "fixed":
        return FixedScheduler(present_layout, dispatch, decisions, tick_s)
    return FixedScheduler(static_layout(name.removeprefix("static:")), dispatch, decisions, tick_s)
