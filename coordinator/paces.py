"""How fast instances are, against what the profile says of the same work."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from core.costs import StepShape
from core.profile import Profile


@dataclass(slots=True)
class Pace:
    """Seconds of device time since an instance attached: measured, and by the profile."""

    measured_s: float = 0.0
    profiled_s: float = 0.0

    def note(self, measured_s: float, profiled_s: float) -> None:
        self.measured_s += measured_s
        self.profiled_s += profiled_s


class Paces:
    """Of steps that only decode, of those with prompts, and of encodes; by instance."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self.decodes: defaultdict[str, Pace] = defaultdict(Pace)
        self.prefills: defaultdict[str, Pace] = defaultdict(Pace)
        self.encodes: defaultdict[str, Pace] = defaultdict(Pace)

    def note_step(self, instance_id: str, shape: StepShape, seconds: float) -> None:
        paces = self.decodes if shape.new_tokens == shape.sequences else self.prefills
        paces[instance_id].note(seconds, self._profile.step.step_s(shape))

    def note_encode(self, instance_id: str, num_tokens: int, seconds: float) -> None:
        self.encodes[instance_id].note(seconds, self._profile.encode.encode_s(num_tokens))

    def forget(self, instance_id: str) -> None:
        """The instance is gone; one that comes back begins anew."""
        for paces in (self.decodes, self.prefills, self.encodes):
            paces.pop(instance_id, None)
