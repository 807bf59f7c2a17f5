"""Which arm of an experiment instances and requests belong to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Arm(Enum):
    """One of the two policy sets that are compared."""

    A = "a"  # the one that the cluster is run with
    B = "b"  # the one that is tried

    @property
    def other(self) -> Arm:
        return Arm.B if self is Arm.A else Arm.A


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a request belongs, and who serves it."""

    home: Arm
    arm: Arm
    experiment: str

    @property
    def has_crossed(self) -> bool:
        """Its own arm could not serve it."""
        return self.home is not self.arm
