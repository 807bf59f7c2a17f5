"""Keeps what the SLO report is made of: tallies of short spans of time, the newest hour of them."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from coordinator.cache.savings import SavingsMeter
from coordinator.observer import CallEnd, RequestEnd
from coordinator.policy.scheduler import Slo
from coordinator.registry import Instance
from coordinator.slo.report import CallClass, ClassReport, SloReport, WindowReport, priority_class
from coordinator.slo.verdict import Verdict, verdict_of_call, verdict_of_end
from coordinator.tenants.labels import TenantLabels
from core.clock import Clock
from core.lifecycle import RequestState

WINDOWS_S = (60.0, 600.0, 3600.0)
_SPAN_S = 5.0  # so much more than its length a window may hold
_SAMPLE_S = 1.0


@dataclass(slots=True)
class _Span:
    start_s: float
    verdicts: Counter[tuple[CallClass, Verdict]] = field(default_factory=Counter)
    num_finished: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    instance_s: float = 0.0
    saved_s: float = 0.0
    saved_bytes: int = 0


class SloBooks:
    """A RequestObserver. `sample` it about once a second; everything runs on the coordinator's loop."""

    def __init__(
        self, slo: Slo, tenants: TenantLabels, clock: Clock, *, price_per_hour: float | None = None
    ) -> None:
        self._slo = slo
        self._tenants = tenants
        self._clock = clock
        self._price_per_hour = price_per_hour
        self._savings = SavingsMeter()
        self._spans: deque[_Span] = deque()
        self._since_s = self._sampled_s = clock.now_s()

    def on_end(self, end: RequestEnd) -> None:
        if end.state is not RequestState.FINISHED:
            return
        span = self._present_span()
        span.num_finished += 1
        span.prompt_tokens += end.usage.prompt_tokens
        span.cached_tokens += end.usage.cached_tokens
        self._judge(span, end, verdict_of_end(end, self._slo))

    def on_unserved(self, call: CallEnd) -> None:
        self._judge(self._present_span(), call, verdict_of_call(call))

    def sample(self, instances: Collection[Instance]) -> None:
        """Counts the time since the last sample as that of these instances, and what their caches spared."""
        now_s, span = self._clock.now_s(), self._present_span()
        saved = self._savings.take(instances)
        span.instance_s += len(instances) * (now_s - self._sampled_s)
        span.saved_s += saved.seconds
        span.saved_bytes += saved.size_bytes
        self._sampled_s = now_s

    async def sample_forever(self, instances: Iterable[Instance]) -> None:
        while True:
            await asyncio.sleep(_SAMPLE_S)
            self.sample(tuple(instances))

    def report(self) -> SloReport:
        windows = tuple(self._window(window_s) for window_s in WINDOWS_S)
        return SloReport(self._slo, self._price_per_hour, windows)

    def _judge(self, span: _Span, end: RequestEnd | CallEnd, verdict: Verdict | None) -> None:
        if verdict is not None:
            calls = CallClass(self._tenants.of(end.tenant), end.group, priority_class(end.priority))
            span.verdicts[calls, verdict] += 1

    def _present_span(self) -> _Span:
        now_s = self._clock.now_s()
        while self._spans and self._spans[0].start_s < now_s - WINDOWS_S[-1] - _SPAN_S:
            self._spans.popleft()
        if not self._spans or now_s - self._spans[-1].start_s >= _SPAN_S:
            self._spans.append(_Span(now_s))
        return self._spans[-1]

    def _window(self, window_s: float) -> WindowReport:
        now_s = self._clock.now_s()
        spans = [span for span in self._spans if span.start_s > now_s - window_s - _SPAN_S]
        return WindowReport(
            window_s=window_s,
            covered_s=min(window_s, now_s - self._since_s),
            classes=_class_reports(spans),
            num_finished=sum(span.num_finished for span in spans),
            prompt_tokens=sum(span.prompt_tokens for span in spans),
            cached_tokens=sum(span.cached_tokens for span in spans),
            instance_s=sum(span.instance_s for span in spans),
            saved_s=sum(span.saved_s for span in spans),
            saved_bytes=sum(span.saved_bytes for span in spans),
        )


def _class_reports(spans: list[_Span]) -> tuple[ClassReport, ...]:
    verdicts = Counter[tuple[CallClass, Verdict]]()
    for span in spans:
        verdicts.update(span.verdicts)
    found = {calls for calls, _ in verdicts}
    in_order = sorted(found, key=lambda each: (each.tenant, each.group.value, each.priority.value))
    return tuple(
        ClassReport(calls, {verdict: verdicts[calls, verdict] for verdict in Verdict}) for calls in in_order
    )
