"""Why a waiting request could not be served by the instances that are there, however long it waited."""

from __future__ import annotations

from coordinator.policy.capacity import Capacity
from coordinator.policy.plan import needed_stages
from coordinator.request import Request
from core.stages import Roles


def hindrance(request: Request, played: Roles, capacity: Capacity) -> str | None:
    """Which stages nobody plays, or that nobody is large enough; None if the request only has to wait."""
    lacking = needed_stages(request.group) - played
    if lacking:
        return f"no instance plays {', '.join(sorted(stage.name for stage in lacking))}"
    fits = capacity.fits_prompt(
        len(request.prompt) + request.num_outputs, request.media_tokens
    ) and capacity.fits_total(len(request.prompt) + request.reserved_outputs)
    return None if fits else "no instance left is large enough"
