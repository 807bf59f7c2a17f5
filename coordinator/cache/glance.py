"""What caches hold of requests, for somebody who looks on."""

from __future__ import annotations

from coordinator.cache.request_warmth import RequestWarmth
from coordinator.policy.warmth import Warmth
from coordinator.policy.work import Work


class WarmthGlance:
    """A WarmthSource that says what the acting policies were told, and leaves no trace there."""

    def __init__(self, warmth: RequestWarmth) -> None:
        self._warmth = warmth

    @property
    def version(self) -> int:
        return self._warmth.version

    def of(self, work: Work) -> Warmth:
        return self._warmth.standing(work.request_id)
