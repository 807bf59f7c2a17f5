"""How the coordinator stands, as one worker in front sees it."""

from __future__ import annotations

from enum import Enum


class Upstream(Enum):
    """The value names it in metrics."""

    READY = "ready"  # every stage is there
    INCOMPLETE = "incomplete"  # it answers, and a stage is missing
    LOST = "lost"  # it does not answer, or nobody knows yet
