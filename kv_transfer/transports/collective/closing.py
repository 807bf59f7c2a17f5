"""The end of all pairs of one side, in bounded time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Protocol

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 1.0


class Joinable(Protocol):
    """A pair that was told to end."""

    def join(self, timeout_s: float) -> bool:
        """Whether its thread ended by then."""


async def join_all(pairs: Iterable[Joinable]) -> None:
    """Waits for their threads, `CLOSE_TIMEOUT_S` in all.

    gloo cannot be called back from a wait for a peer that is frozen. A thread that is in one is left
    to end with the pair's own timeout: it touches no pool any more, only the pair's buffers.
    """
    num_left = await asyncio.to_thread(_join, list(pairs))
    if num_left:
        logger.warning("%d pairs still wait for their peers; their threads end by themselves", num_left)


def _join(pairs: list[Joinable]) -> int:
    end_s = time.monotonic() + CLOSE_TIMEOUT_S
    return sum(not pair.join(max(0.0, end_s - time.monotonic())) for pair in pairs)
