"""What turns an instance from what it plays into what it is to play.

CLEARING ──► SWITCHING ──► DONE
    │            └──► RETURNING ──► ROLLED_BACK
    └──────────────────────────────────▲
any state that is not final ──► LOST, when the instance goes
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from coordinator.policy.plan import Assignment


class TransitionState(Enum):
    CLEARING = "clearing"  # takes nothing new; sequences that are cheaper to move away leave
    SWITCHING = "switching"  # was told what to play, has not said yet that it does
    RETURNING = "returning"  # was told to play what it did before
    DONE = "done"
    ROLLED_BACK = "rolled back"
    LOST = "lost"


_S = TransitionState

LEGAL_MOVES: dict[TransitionState, frozenset[TransitionState]] = {
    _S.CLEARING: frozenset({_S.SWITCHING, _S.ROLLED_BACK, _S.LOST}),
    _S.SWITCHING: frozenset({_S.DONE, _S.RETURNING, _S.LOST}),
    _S.RETURNING: frozenset({_S.ROLLED_BACK, _S.LOST}),
    _S.DONE: frozenset(),
    _S.ROLLED_BACK: frozenset(),
    _S.LOST: frozenset(),
}


class IllegalTransition(RuntimeError):
    """A transition was moved along no edge of the table."""


@dataclass(frozen=True, slots=True)
class Cleared:
    """What was moved off an instance before it switched."""

    num_moved: int = 0
    size_bytes: int = 0


NOTHING_MOVED = Cleared()


@dataclass(frozen=True, slots=True)
class PastTransition:
    """One that has ended, for whoever asks what switching costs."""

    number: int  # counts from 1
    ended_s: float  # on the reconciler's clock
    instance_id: str
    before: Assignment
    after: Assignment
    is_done: bool  # False: rolled back
    took_s: float
    clearing_s: float  # the part of it before the instance was told to switch
    num_resident: int  # sequences that decoded or prefilled there, or were about to, at its start
    cleared: Cleared


@dataclass(slots=True, eq=False)
class Transition:
    """One at a time per instance. Changed by the Reconciler only."""

    instance_id: str
    before: Assignment
    after: Assignment
    started_s: float
    deadline_s: float  # on the reconciler's clock
    num_resident: int = 0
    cleared: Cleared = NOTHING_MOVED
    cleared_s: float | None = None  # when that was over
    state: TransitionState = TransitionState.CLEARING

    def move(self, wanted: TransitionState) -> None:
        """Raises IllegalTransition if the table has no such move."""
        if wanted not in LEGAL_MOVES[self.state]:
            raise IllegalTransition(f"{self.instance_id}: from {self.state.value} to {wanted.value}")
        self.state = wanted

    def past(self, number: int, now_s: float) -> PastTransition:
        """Its record, once it is final."""
        return PastTransition(
            number=number,
            ended_s=now_s,
            instance_id=self.instance_id,
            before=self.before,
            after=self.after,
            is_done=self.state is TransitionState.DONE,
            took_s=now_s - self.started_s,
            clearing_s=(now_s if self.cleared_s is None else self.cleared_s) - self.started_s,
            num_resident=self.num_resident,
            cleared=self.cleared,
        )

    @property
    def is_final(self) -> bool:
        return not LEGAL_MOVES[self.state]
