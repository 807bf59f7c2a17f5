"""How steps and encoding share one device. One rule for stage servers and the simulator."""

from __future__ import annotations

from collections.abc import Callable

_TURN_SHARE = 0.6  # of the target per token: a turn ends up to a slice late, and prompts make steps longer
_MOST_STEPS = 3  # that encoding may take the time of: steps have a quarter then, and less would save little


class EncodeTurns:
    """Asked where both steps and encoding have work; told what either took.

    After a step, encoding has about as long as that step took, one slice at least, and up to three times as
    long where the target per token allows it: a step costs much the same however few it has to do, so that
    steps more often than the target asks for would take the time from encoding. So neither starves, and a
    token comes in time.

    A prompt without media lets encoding wait for one step, and again once encoding has had as long as that
    step took: it waits for a slice, or for no longer than the step that has just gone first.
    """

    __slots__ = ("_is_yielding", "_left_s", "_owed_s", "_slice_s", "_turn_s")

    def __init__(self, slice_s: float, tpot_s: float = 0.0) -> None:
        """`tpot_s`: see `aim_for`."""
        self._slice_s = slice_s
        self._left_s = slice_s
        self._owed_s = 0.0  # to encoding, before a prompt may go first again
        self._is_yielding = False
        self.aim_for(tpot_s)

    def aim_for(self, tpot_s: float) -> None:
        """Seconds per token that are soon enough; 0.0: none is known, decodes go as soon as is fair."""
        self._turn_s = _TURN_SHARE * tpot_s

    def is_encode_next(self, is_text_ready: Callable[[], bool]) -> bool:
        """Whether a slice goes before the next step."""
        if self._left_s <= 0:
            return False
        if self._owed_s > 0 or not is_text_ready():
            return True
        self._is_yielding = True
        return False

    def note_slice(self, seconds: float, *, is_last: bool) -> None:
        """`is_last`: the turn ends with it, as where nothing is left to encode."""
        self._left_s = 0.0 if is_last else self._left_s - seconds
        self._owed_s = 0.0 if is_last else self._owed_s - seconds

    def note_step(self, seconds: float) -> None:
        fair_s = seconds if seconds > self._slice_s else self._slice_s
        if self._is_yielding:
            self._is_yielding = False
            self._owed_s = fair_s
        self._left_s = max(fair_s, min(self._turn_s - seconds, _MOST_STEPS * seconds))
