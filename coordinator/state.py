"""What the coordinator says of itself, to clients and to admins."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.cluster import InstanceStatus


@dataclass(frozen=True, slots=True)
class ServedDescription:
    """What GetModel answers."""

    model: str
    media_endpoint: str  # empty: media go inline only
    context_tokens: int
    message_bytes: int
    media_bytes: int
    media_pixels: int
    media_per_request: int
    media_ttl_s: float
    resume_ttl_s: float = 0.0  # 0: no request is resumable
    resume_tokens: int = 0


@dataclass(frozen=True, slots=True)
class CoordinatorState:
    """What GetStatus answers."""

    model: str
    version: str
    uptime_s: float
    num_waiting: int
    num_running: int
    num_finished: int
    num_failed: int
    instances: tuple[InstanceStatus, ...]
    topology: str
    num_missing: int
