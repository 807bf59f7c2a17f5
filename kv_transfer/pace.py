"""A link slower than the one at hand, for devices that are emulated."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from core.clock import Clock, MonotonicClock
from kv_transfer.layout import PayloadKind


@dataclass(frozen=True, slots=True)
class LinkCosts:
    """What a payload takes: setup_s, and per_token_s for each of its tokens."""

    setup_s: float
    per_token_s: float


class PacedLink:
    """One instance's way out: payloads pass one after the other, each at its kind's pace.

    `occupy` may be called from any thread.
    """

    def __init__(self, costs: Mapping[PayloadKind, LinkCosts], clock: Clock | None = None) -> None:
        self._costs = dict(costs)
        self._clock = clock or MonotonicClock()
        self._lock = threading.Lock()
        self._free_s = 0.0

    def occupy(self, kind: PayloadKind, num_tokens: float) -> float:
        """When so many tokens more have passed, on the link's clock, the payload's setup included."""
        costs = self._costs[kind]
        with self._lock:
            self._free_s = max(self._free_s, self._clock.now_s()) + num_tokens * costs.per_token_s
            return self._free_s + costs.setup_s

    async def wait_until(self, passed_at_s: float) -> None:
        """Returns at that time on the link's clock; at once if it is past."""
        wait_s = passed_at_s - self._clock.now_s()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
