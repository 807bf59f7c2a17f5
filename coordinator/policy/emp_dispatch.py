"""How requests are dispatched where forms change, whoever chooses the forms."""

from __future__ import annotations

from coordinator.policy.costing import Costing
from coordinator.policy.decisions import DecisionRing
from coordinator.policy.dispatch import Dispatch
from coordinator.policy.lateness import LateYields
from coordinator.policy.pieces import ALL_PIECES, Piece, Pieces
from coordinator.policy.scheduler import Slo
from coordinator.policy.turns import FairTurns
from coordinator.policy.warmth import WarmthSource


def emp_dispatch(
    costing: Costing,
    slo: Slo,
    decisions: DecisionRing,
    pieces: Pieces = ALL_PIECES,
    warmth: WarmthSource | None = None,
) -> Dispatch:
    """Text and media take turns by device seconds, and who is late in any case yields."""
    queueing = LateYields(slo) if Piece.LATE_YIELDS in pieces else None
    warmth = warmth if Piece.CACHE_AWARE in pieces else None
    return Dispatch(costing, FairTurns(), decisions, queueing=queueing, warmth=warmth)
