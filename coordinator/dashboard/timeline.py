"""Who played what when, and how many requests there were: the last minutes, second by second."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from coordinator.state import CoordinatorState
from core.clock import Clock
from core.stages import roles_name

KEPT_S = 600.0
_PERIOD_S = 1.0
_GAP_S = 5 * _PERIOD_S  # seen again later than this, an instance was away


@dataclass(slots=True)
class Span:
    """An instance that plays the same for the same group; grows as long as it does."""

    instance_id: str
    roles: str  # letters in stage order: "epd"
    group: str
    since_s: float  # on the coordinator's clock
    until_s: float


@dataclass(frozen=True, slots=True)
class Sample:
    at_s: float
    num_waiting: int
    num_running: int


class Timeline:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.spans: list[Span] = []  # in order of start
        self.samples: deque[Sample] = deque()
        self._present: dict[str, Span] = {}

    def note(self, state: CoordinatorState) -> None:
        """The cluster as it is now."""
        now_s = self._clock.now_s()
        self.samples.append(Sample(now_s, state.num_waiting, state.num_running))
        for each in state.instances:
            self._see(each.info.instance_id, roles_name(each.info.roles), each.info.group.value, now_s)
        self._forget(now_s - KEPT_S)

    async def watch_forever(self, state: Callable[[], CoordinatorState]) -> None:
        while True:
            self.note(state())
            await asyncio.sleep(_PERIOD_S)

    def _see(self, instance_id: str, roles: str, group: str, now_s: float) -> None:
        span = self._present.get(instance_id)
        if span is None or now_s - span.until_s > _GAP_S:
            span = self._begin(Span(instance_id, roles, group, now_s, now_s))
        span.until_s = now_s
        if (span.roles, span.group) != (roles, group):
            self._begin(Span(instance_id, roles, group, now_s, now_s))

    def _begin(self, span: Span) -> Span:
        self.spans.append(span)
        self._present[span.instance_id] = span
        return span

    def _forget(self, before_s: float) -> None:
        while self.samples and self.samples[0].at_s < before_s:
            self.samples.popleft()
        if self.spans and min(span.until_s for span in self.spans) < before_s:
            self.spans = [span for span in self.spans if span.until_s >= before_s]
            self._present = {span.instance_id: span for span in self.spans}
