"""Keeps the garbage collector out of the way of loops and engines.

A full collection looks at every object there is: with ten thousand waiting requests that is tens of
milliseconds in which nothing is dispatched, and with the modules of a stage server half a second and more in
which nothing is computed. Reference counts free all but cycles, so it can wait.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

_YOUNG, _MIDDLE, _NEVER = 20_000, 20, 1_000_000_000
_LOOK_S = 5.0
_LONGEST_S = 600.0  # between two full collections, however busy the process is


def settle_collector() -> None:
    """After start-up: what is there stays, and full collections do not happen by themselves any more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _NEVER)


async def collect_when_idle(
    is_idle: Callable[[], bool], *, look_s: float = _LOOK_S, longest_s: float = _LONGEST_S
) -> None:
    """Never returns. Looks every `look_s` whether nothing runs, and collects then, or after `longest_s`."""
    waited_s = 0.0
    while True:
        await asyncio.sleep(look_s)
        waited_s += look_s
        _, has_worked, _ = gc.get_count()
        if (has_worked and is_idle()) or waited_s >= longest_s:
            gc.collect()
            waited_s = 0.0
