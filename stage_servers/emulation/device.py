"""The time line of an emulated device."""

from __future__ import annotations

import time
from collections.abc import Callable

# The host of a real device prepares the next step while one runs: work that comes this soon after the
# last one is taken to have been waiting. What was there all the time may come later, since here the host
# has many devices to serve; not without bound, or a host that stood still would have a device in haste.
HOST_SLACK_S = 0.005
MOST_LATE_S = 0.1


class EmulatedDevice:
    """Sleeps until work of so many profile seconds would be done. One thread, the engine's.

    `time_scale` is how many real seconds one profile second takes.
    """

    def __init__(
        self,
        time_scale: float = 1.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not time_scale > 0:
            raise ValueError(f"time_scale: must be above 0, not {time_scale}")
        self.time_scale = time_scale
        self._clock = clock
        self._sleep = sleep
        self._free_s = clock()
        self._has_rested = True

    def note_rest(self) -> None:
        """There is nothing to do: what comes next could not have begun when the last work ended."""
        self._has_rested = True

    def work(self, seconds: float) -> None:
        """Returns when the work is done. Without a rest before it could have begun when the last ended."""
        now_s = self._clock()
        slack_s = HOST_SLACK_S if self._has_rested else MOST_LATE_S
        self._has_rested = False
        start_s = self._free_s if now_s - self._free_s < slack_s else now_s
        self._free_s = start_s + seconds * self.time_scale
        wait_s = self._free_s - self._clock()
        if wait_s > 0:
            self._sleep(wait_s)
