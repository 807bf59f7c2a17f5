"""Who was let in a moment ago, so that not every call asks twice.

What a call may do is asked with the call itself: a key that was taken away meanwhile opens nothing.
"""

from __future__ import annotations

from coordinator.front.caller import Metadata
from coordinator.state import ServedDescription
from core.clock import Clock

KEEP_S = 5.0
MAX_KEPT = 1024


class Admissions:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.wants_keys = False  # what is known of it: a coordinator that had keys asks for them to its end
        self._kept: dict[Metadata, tuple[float, ServedDescription]] = {}  # until when; oldest first

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, proof: Metadata) -> ServedDescription | None:
        """What was described to who proved this, not long ago."""
        end_s, description = self._kept.get(proof, (0.0, None))
        return description if self._clock.now_s() < end_s else None

    def note(self, proof: Metadata, description: ServedDescription) -> None:
        self._kept.pop(proof, None)
        self._kept[proof] = (self._clock.now_s() + KEEP_S, description)
        if len(self._kept) > MAX_KEPT:
            del self._kept[next(iter(self._kept))]
