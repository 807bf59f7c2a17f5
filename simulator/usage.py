"""What one instance did over a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Usage:
    """Seconds that the device worked, and counts; a decode run counts as one step."""

    encode_s: float = 0.0
    step_s: float = 0.0
    num_encodes: int = 0
    num_steps: int = 0
    num_preemptions: int = 0

    @property
    def busy_s(self) -> float:
        return self.encode_s + self.step_s
