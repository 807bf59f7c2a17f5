"""What happens to the parts of a cluster while it starts and runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

COORDINATOR = "coordinator"
STAGES = "stages"  # the process that stage servers are forked from


class PartState(Enum):
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class LaunchEvent:
    """`part` is COORDINATOR, STAGES or an instance id; `message` an address, a reason or empty."""

    part: str
    state: PartState
    message: str = ""
    pid: int | None = None


Reporter = Callable[[LaunchEvent], None]


class LaunchError(RuntimeError):
    """A part did not start. The message names it and says why, with its last log lines."""
