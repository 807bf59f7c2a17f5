"""How requests leave: finished, failed or cancelled, and every stage that has them told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from coordinator.errors import ServiceError
from coordinator.migrations import Migrations
from coordinator.observer import RequestObserver
from coordinator.policy.expectation import OutputExpectation
from coordinator.registry import Instance, Registry
from coordinator.request import Request
from coordinator.stage_messages import CancelCommand
from coordinator.story import finished_event, log_end, request_end
from core.clock import Clock
from core.lifecycle import RequestState

log = logging.getLogger(__name__)


class Endings:
    """Works on the dispatcher's requests and takes out those that end; nothing here waits.

    `on_end` is told of every request that needs no instance any more, perhaps twice.
    A finished request stays until all reports of it are here, for `report_grace_s` at most.
    """

    def __init__(
        self,
        requests: dict[str, Request],
        registry: Registry,
        migrations: Migrations,
        expectation: OutputExpectation,
        clock: Clock,
        *,
        report_grace_s: float,
        on_end: Callable[[Request], None],
        observer: RequestObserver | None = None,
    ) -> None:
        self._requests = requests
        self._registry = registry
        self._migrations = migrations
        self._expectation = expectation
        self._clock = clock
        self._report_grace_s = report_grace_s
        self._on_end = on_end
        self._observer = observer
        self._closing: dict[str, asyncio.TimerHandle] = {}  # finished, some stage's report still to come
        self.num_finished = 0
        self.num_failed = 0

    def finish(self, request: Request, reporter: Instance | None) -> None:
        request.advance(RequestState.FINISHED)
        request.finished_s = self._clock.now_s()
        self._cancel_others(request, reporter)
        self._on_end(request)
        self._expectation.record(request.num_outputs)
        self.num_finished += 1
        loop = asyncio.get_running_loop()
        self._closing[request.request_id] = loop.call_later(self._report_grace_s, self.close, request)
        self.close_if_told(request)

    def cancel(self, request: Request) -> None:
        self.recall(request)
        request.advance(RequestState.CANCELLED)
        self._forget(request)

    def fail(self, request: Request, error: ServiceError) -> None:
        self.recall(request)
        request.advance(RequestState.FAILED)
        request.error = str(error)
        facts = {"request_id": request.request_id, "tenant": request.tenant}
        log.warning("request %s: %s", request.request_id, error, extra=facts)
        request.error = str(error)
        self.num_failed += 1
        request.output.stream.close(error)
        self._forget(request)

    def recall(self, request: Request) -> None:
        """Cancels the present dispatch everywhere."""
        self._migrations.call_off(request, "the request ended, or is dispatched again")
        if request.placement is None:
            return
        for name in request.placement.instance_ids:
            if (instance := self._registry.get(name)) is not None:
                instance.send(CancelCommand(request.request_id, request.attempt))

    def close_if_told(self, request: Request | None) -> None:
        """Closes a finished request once every report of it is here."""
        if request is not None and request.state is RequestState.FINISHED and request.has_all_reports:
            self.close(request)

    def close(self, request: Request) -> None:
        """Tells the client that it is finished, once; the end of the request's life here."""
        timer = self._closing.pop(request.request_id, None)
        if timer is None:
            return
        timer.cancel()
        self._migrations.call_off(request, "the answer ended, and its source did not say more")
        request.output.stream.close(finished_event(request, self._clock.now_s()))
        self._forget(request)

    def check_integrity(self) -> None:
        """Raises AssertionError if an ended request is held that no report is awaited of, or the reverse."""
        for request in self._requests.values():
            held = request.is_final and request.request_id not in self._closing
            assert not held, f"{request.request_id}: {request.state.value} and still held"
        assert self._closing.keys() <= self._requests.keys(), "closing: unknown requests"

    def _cancel_others(self, request: Request, reporter: Instance | None) -> None:
        """Stages that do not know that the answer has ended; late reports of it are still welcome."""
        assert request.placement is not None
        if reporter is not None and request.is_moving_to(reporter.instance_id):
            return  # so it moved, which its source is about to say
        self._migrations.call_off(request, "the answer ended")
        for name in request.placement.instance_ids:
            instance = self._registry.get(name)
            if instance is not None and instance is not reporter and request.needs(name):
                instance.send(CancelCommand(request.request_id, request.attempt))

    def _forget(self, request: Request) -> None:
        self._requests.pop(request.request_id, None)
        self._on_end(request)
        now_s = self._clock.now_s()
        log_end(request, now_s)
        if self._observer is not None:
            self._observer.on_end(request_end(request, now_s))
