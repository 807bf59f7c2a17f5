"""One instance to play something else, and what was weighed for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from coordinator.policy.books import InstanceBook
from coordinator.policy.plan import Assignment

DECODE_SCALING = "decode scaling"


@dataclass(frozen=True, slots=True)
class Change:
    """Gain and cost in seconds per token; worth doing where the gain is larger."""

    piece: str
    instance_id: str
    to: Assignment
    gain: float
    cost: float
    reason: str

    @property
    def net(self) -> float:
        return self.gain - self.cost

    @property
    def is_loan(self) -> bool:
        """To decode, or given back: it ends by itself, as soon as decode does without it."""
        return self.piece == DECODE_SCALING

    @property
    def numbers(self) -> dict[str, float]:
        return {"gain_s_per_token": self.gain, "cost_s_per_token": self.cost}


MayMove = Callable[[InstanceBook], bool]


def best_change(changes: Iterable[Change]) -> Change | None:
    """The one with most net gain, the first of equals; None where none gains more than it costs."""
    best = max(changes, key=lambda change: change.net, default=None)
    return best if best is not None and best.net > 0 else None
