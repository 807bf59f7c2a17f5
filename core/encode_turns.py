"""How steps and encoding share one device. One rule for stage servers and the simulator."""

from __future__ import annotations

from collections.abc import Callable


class EncodeTurns:
    """Asked where both steps and encoding have work; told what either took.

    After a step, encoding has about as long as that step took, one slice at least. So neither starves, and a
    decode waits for no more than a slice or a step. A prompt without media lets the encoding's turn wait
    for one step, once a turn: it waits for a slice, or for no longer than the step that has just gone first.
    """

    __slots__ = ("_has_yielded", "_left_s", "_slice_s")

    def __init__(self, slice_s: float) -> None:
        self._slice_s = slice_s
        self._left_s = slice_s
        self._has_yielded = False

    def is_encode_next(self, is_text_ready: Callable[[], bool]) -> bool:
        """Whether a slice goes before the next step."""
        if self._left_s <= 0:
            return False
        if self._has_yielded or not is_text_ready():
            return True
        self._has_yielded = True
        return False

    def note_slice(self, seconds: float, *, is_last: bool) -> None:
        """`is_last`: the turn ends with it, as where nothing is left to encode."""
        self._left_s = 0.0 if is_last else self._left_s - seconds

    def note_step(self, seconds: float) -> None:
        if self._left_s <= 0:
            self._has_yielded = False
        self._left_s = seconds if seconds > self._slice_s else self._slice_s
