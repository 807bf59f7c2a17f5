"""Every state a request can be in, and every legal move, in one table.

QUEUED ──► ENCODING ◄─► PREFILLING ──► DECODING ──► FINISHED
   │  └────────────────────▲  │ └───────────────────────▲
   │                          │
   ◄──── an instance was lost: dispatched again ─────────┘
any state that is not final ──► FAILED, CANCELLED
"""

from __future__ import annotations

from enum import Enum


class RequestState(Enum):
    QUEUED = "queued"  # accepted, waits for dispatch
    ENCODING = "encoding"  # dispatched, media are not all encoded; prefill may run beside it
    PREFILLING = "prefilling"  # dispatched, every embedding is there or none is needed, as far as is known
    DECODING = "decoding"  # the first token of this dispatch is out
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"  # by the client, its disconnect or its deadline

    __hash__ = object.__hash__  # as of core.stages.Stage: looked up at every move


_S = RequestState

LEGAL_MOVES: dict[RequestState, frozenset[RequestState]] = {
    _S.QUEUED: frozenset({_S.ENCODING, _S.PREFILLING, _S.FAILED, _S.CANCELLED}),
    _S.ENCODING: frozenset({_S.PREFILLING, _S.QUEUED, _S.FAILED, _S.CANCELLED}),
    # Back to ENCODING where a cached prefix was not there after all, and its media are needed.
    _S.PREFILLING: frozenset({_S.ENCODING, _S.DECODING, _S.FINISHED, _S.QUEUED, _S.FAILED, _S.CANCELLED}),
    _S.DECODING: frozenset({_S.FINISHED, _S.QUEUED, _S.FAILED, _S.CANCELLED}),
    _S.FINISHED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
}


class IllegalMove(RuntimeError):
    """A request was moved along no edge of the table."""


def is_final(state: RequestState) -> bool:
    return not LEGAL_MOVES[state]


def move(present: RequestState, wanted: RequestState) -> RequestState:
    """Returns `wanted`; raises IllegalMove if the table has no such move."""
    if wanted not in LEGAL_MOVES[present]:
        raise IllegalMove(f"a request cannot go from {present.name} to {wanted.name}")
    return wanted
