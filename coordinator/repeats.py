"""Dispatches requests again whose instance was lost or failed, at once or after a pause, and not for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from coordinator.books import LiveBooks
from coordinator.cache.request_warmth import RequestWarmth
from coordinator.endings import Endings
from coordinator.errors import UnavailableError
from coordinator.request import Request
from coordinator.stage_messages import FailureReport
from core.clock import Clock
from core.lifecycle import RequestState
from core.stages import Stage

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 3  # the first dispatch and two more

# gRPC status numbers after which another dispatch may succeed.
_DEADLINE_EXCEEDED, _RESOURCE_EXHAUSTED, _ABORTED, _UNAVAILABLE = 4, 8, 10, 14
_RETRYABLE = frozenset({_DEADLINE_EXCEEDED, _RESOURCE_EXHAUSTED, _ABORTED, _UNAVAILABLE})
_RETRY_DELAY_S = 0.2


class Repeats:
    """Works on the dispatcher's requests; nothing here waits. `tick` is called when a pause is over."""

    def __init__(
        self,
        requests: Mapping[str, Request],
        live: LiveBooks,
        warmth: RequestWarmth,
        endings: Endings,
        clock: Clock,
        *,
        tick: Callable[[], None],
    ) -> None:
        self._requests = requests
        self._live = live
        self._warmth = warmth
        self._endings = endings
        self._clock = clock
        self._tick = tick
        self._pausing: list[tuple[float, Request]] = []  # until when each waits for its next dispatch

    def retry(self, request: Request, failure: FailureReport, cause: str) -> bool:
        """After a pause, if this failure may pass; False, and nothing happens, if not."""
        if failure.code not in _RETRYABLE:
            return False
        if failure.stage is Stage.DECODE:
            # It may have run out of blocks; next time there is room for the whole answer.
            request.reserve_tokens = request.sampling.max_tokens
        self.repeat(request, cause, delay_s=_RETRY_DELAY_S * 4 ** (request.num_attempts - 1))
        return True

    def repeat(self, request: Request, cause: str, delay_s: float = 0.0) -> None:
        """It waits for dispatch again, or fails if that was its last attempt."""
        request.last_loss = cause
        if request.num_attempts >= MAX_ATTEMPTS:
            self._endings.fail(
                request, UnavailableError(f"gave up after {MAX_ATTEMPTS} attempts; the last ended as {cause}")
            )
            return
        facts = {"request_id": request.request_id, "tenant": request.tenant}
        log.warning("request %s: dispatched again, %s", request.request_id, cause, extra=facts)
        self._endings.recall(request)
        self._warmth.under_way.end(request.request_id)
        request.queue_again()
        self._warmth.enter(request.request_id, request.keys)
        request.queued_s = self._clock.now_s()
        if delay_s:
            self._live.end(request)
            self._pausing.append((self._clock.now_s() + delay_s, request))
            asyncio.get_running_loop().call_later(delay_s, self._tick)
        else:
            self._live.queue(request)

    def end_pauses(self, now_s: float) -> None:
        """Requests whose pause is over wait for dispatch again, unless they have ended meanwhile."""
        if not self._pausing:
            return
        due = [request for until_s, request in self._pausing if until_s <= now_s]
        self._pausing = [each for each in self._pausing if each[0] > now_s]
        for request in due:
            is_here = self._requests.get(request.request_id) is request
            if is_here and request.state is RequestState.QUEUED:
                self._live.queue(request)
