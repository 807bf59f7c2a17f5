"""Decisions of the set that is tried, among those of the other one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from coordinator.policy.decisions import Decision, DecisionRing
from coordinator.policy.seat import Arm


class MarkedRing(DecisionRing):
    """Keeps nothing: passes decisions on, marked with their arm."""

    def __init__(self, into: DecisionRing, arm: Arm) -> None:
        super().__init__(0)
        self._into = into
        self._arm = arm

    def add(self, decision: Decision) -> None:
        self._into.add(self._marked(decision))

    def add_later(self, piece: str, tell: Callable[[], Decision]) -> None:
        self._into.add_later(piece, lambda: self._marked(tell()))

    def _marked(self, decision: Decision) -> Decision:
        return replace(decision, arm=self._arm)
