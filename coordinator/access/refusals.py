"""Refused calls in the audit log, so few that nobody can fill it."""

from __future__ import annotations

from coordinator.audit import AuditLog
from core.clock import Clock

_WINDOW_S = 60.0
_MAX_NOTES = 10  # in a window


class Refusals:
    def __init__(self, audit: AuditLog, clock: Clock) -> None:
        self._audit = audit
        self._clock = clock
        self._window_end_s = clock.now_s() + _WINDOW_S
        self._num_noted = 0
        self._num_left_out = 0

    def note(self, reason: str, peer: str) -> None:
        """The next line says how many before it were left out."""
        if self._clock.now_s() >= self._window_end_s:
            self._window_end_s = self._clock.now_s() + _WINDOW_S
            self._num_noted = 0
        if self._num_noted >= _MAX_NOTES:
            self._num_left_out += 1
            return
        self._num_noted += 1
        self._audit.note("access_refused", reason=reason, peer=peer, left_out=self._num_left_out)
        self._num_left_out = 0
