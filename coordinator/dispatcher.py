"""Acts on the policy's decisions: sends commands, takes reports, ends and repeats requests."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from itertools import count

from coordinator.books import LiveBooks
from coordinator.cache.explanations import Explanations
from coordinator.cache.request_warmth import RequestWarmth
from coordinator.endings import Endings
from coordinator.errors import InternalFailureError, InvalidFieldError, ServiceError, UnavailableError
from coordinator.hindrance import hindrance
from coordinator.migration import MigrationOutcome
from coordinator.migrations import Migrations
from coordinator.observer import RequestObserver
from coordinator.orders import Orders
from coordinator.paces import Paces
from coordinator.policy.books import Books
from coordinator.policy.capacity import Capacity, cluster_capacity
from coordinator.policy.expectation import OutputExpectation
from coordinator.policy.scheduler import Scheduler
from coordinator.policy.view import Placement
from coordinator.recent import Recent
from coordinator.registry import Instance, Registry
from coordinator.repeats import Repeats
from coordinator.request import Request
from coordinator.stage_messages import (
    FailureReport,
    MigrationReport,
    NeedReport,
    StageReport,
    StepReport,
    TokenRun,
)
from core.clock import Clock
from core.lifecycle import RequestState
from core.stages import Stage

log = logging.getLogger(__name__)

_NOT_FOUND = 5  # gRPC's; of an encoder: who was to have the embedding has no such request any more


class Dispatcher:
    """Holds every accepted request from submit to its end. Runs on one event loop; nothing here waits."""

    def __init__(
        self,
        registry: Registry,
        live: LiveBooks,
        scheduler: Scheduler,
        expectation: OutputExpectation,
        clock: Clock,
        *,
        warmth: RequestWarmth,
        explanations: Explanations,
        paces: Paces,
        report_grace_s: float,
        instance_wait_s: float,
        observer: RequestObserver | None = None,
    ) -> None:
        self._registry = registry
        self._live = live
        self._scheduler = scheduler
        self._expectation = expectation
        self._clock = clock
        self._paces = paces
        self._warmth = warmth
        self._explanations = explanations
        self._orders = Orders(registry, warmth.under_way)
        self._instance_wait_s = instance_wait_s
        self._requests: dict[str, Request] = {}
        self.recent = Recent(self._requests, clock)
        # Dispatches are numbered over all requests and, nearly, over all coordinators: stage servers
        # remember ended dispatches, and a client may use a request id again.
        self._dispatch_numbers = count(time.time_ns() // 10**9 % 2**31)
        self._migrations = Migrations(
            self._requests,
            registry,
            clock,
            books=live.books,
            note=live.note,
            next_attempt=self._next_attempt,
            repeat=self._repeat,
        )
        self._endings = Endings(
            self._requests,
            registry,
            self._migrations,
            expectation,
            clock,
            report_grace_s=report_grace_s,
            on_end=self._let_go,
            observer=observer,
        )

        self._repeats = Repeats(self._requests, live, warmth, self._endings, clock, tick=self.tick)

    # what the door and the servicers call

    def submit(self, request: Request) -> None:
        request.queued_s = self._clock.now_s()
        self._requests[request.request_id] = request
        self._warmth.enter(request.request_id, request.keys)
        self._live.queue(request)
        work = self._live.work_of(request)
        assert work is not None
        self._scheduler.note_arrival(work, request.queued_s)
        self.tick()

    def cancel(self, request: Request) -> None:
        """Stops a request wherever it is; nothing if it has ended."""
        if request.is_final:
            self._endings.close(request)
            return
        self._endings.cancel(request)
        self.tick()

    def migrate(self, request_id: str, target: str | None) -> asyncio.Future[MigrationOutcome]:
        """Moves a decoding request to another instance, the least loaded one with room if None is named.

        The future gets the outcome and never raises; cancelling it calls nothing off.
        Raises NotFoundError, CannotMigrateError.
        """
        return self._migrations.start(request_id, target)

    def take_migration(self, instance: Instance, report: MigrationReport) -> None:
        self._migrations.take_report(instance, report)
        self._endings.close_if_told(self._requests.get(report.request_id))
        self.tick()  # blocks became free at one of the ends

    def take_step(self, instance: Instance, report: StepReport) -> None:
        if report.load is not None:
            instance.load = report.load
        if report.measure is not None:
            measured = instance.instance_id, report.measure.shape, report.measure.seconds
            self._paces.note_step(*measured)
            self._scheduler.note_step(*measured)
        for run in report.runs:
            self._take_run(instance, run)

    def take_stage(self, instance: Instance, report: StageReport) -> None:
        request = self._spoken_of(report)
        if request is None or not request.has_stage(report.stage, instance.instance_id):
            return
        request.note_stage(report, instance.instance_id)
        if report.stage is Stage.ENCODE:
            self._warmth.under_way.done(request.request_id, report.item_index)
        if report.device_s:
            self._note_encode(instance, request.media[report.item_index].span.num_tokens, report.device_s)
        self._live.note(request)
        self._note_encoded(request)
        self._endings.close_if_told(request)
        self.tick()

    def take_failure(self, instance: Instance, failure: FailureReport) -> None:
        request = self._spoken_of(failure)
        if request is None or not request.is_running:
            return
        cause = f"{instance.instance_id}: {failure.message}"
        if failure.attempt != request.attempt:
            self._migrations.lose_target(request, cause)
            return
        if self._is_of_no_matter(request, failure):
            request.forgo_embedding(failure.item_index)
            self._forgo_embeddings(request, instance)
            self._note_encoded(request)
        elif failure.field:
            self._endings.fail(request, InvalidFieldError(_blamed_field(request, failure), failure.message))
        elif not self._repeats.retry(request, failure, cause):
            self._endings.fail(request, InternalFailureError(cause))
        self.tick()

    def take_need(self, instance: Instance, report: NeedReport) -> None:
        """An instance lacks what a cached prefix should have held, or KV that it gave up: the media in it are
        encoded after all, or again.
        """
        request = self._spoken_of(report)
        if request is None or not request.is_running or not request.may_make_tokens(instance.instance_id):
            return
        attached = {each.instance_id for each in self._registry}
        needed = request.note_need(instance.instance_id, report, attached)
        self._live.note(request)
        self._orders.send_encodes(request, needed, instance.peer, report.attempt)

    def add_instance(self, instance: Instance) -> None:
        """It takes work from now on."""
        self._live.attach(instance)
        self.tick()

    def note_roles(self, instance: Instance) -> None:
        """It plays other stages, or for another group."""
        self._live.note_roles(instance)
        self.tick()

    def note_heartbeat(self, instance: Instance) -> None:
        """All that it did up to now it has reported, what its caches took in included."""
        self._warmth.under_way.settle(instance.instance_id)

    def lose_instance(self, instance: Instance, cause: str) -> None:
        """Its requests are dispatched again, from the prompt plus the tokens already sent."""
        self._live.detach(instance)
        self._warmth.under_way.lose(instance.instance_id)
        loss = f"{instance.instance_id} was lost ({cause})"
        for request in tuple(self._requests.values()):
            if request.is_final or self._migrations.outlives_source(request, instance.instance_id):
                continue
            if request.depends_on(instance.instance_id):
                self._repeat(request, loss)
                continue
            self._forgo_embeddings(request, instance)
            if request.is_moving_to(instance.instance_id):
                self._migrations.lose_target(request, loss)
        self.tick()

    def tick(self) -> None:
        """Dispatches what the policies would have dispatched now."""
        now_s = self._clock.now_s()
        self._repeats.end_pauses(now_s)
        while (placement := self._scheduler.place(self._live.books, now_s)) is not None:
            self._dispatch(self._requests[placement.request_id], placement)

    def expire(self) -> None:
        """Fails requests that have waited too long for instances that are not there."""
        capacity = self.capacity()
        longest_since_s = self._clock.now_s() - self._instance_wait_s
        for request in tuple(self._requests.values()):
            if not self._is_waiting(request) or request.queued_s > longest_since_s:
                continue
            found = hindrance(request, self._registry.played(), capacity)
            if found is not None:
                cause = f"; {request.last_loss}" if request.last_loss else ""
                self._endings.fail(request, UnavailableError(found + cause))
        self.tick()

    def fail_all(self, error: ServiceError) -> None:
        """Ends every request, at shutdown."""
        for request in tuple(self._requests.values()):
            if not request.is_final:
                self._endings.fail(request, error)

    # what others ask

    @property
    def num_waiting(self) -> int:
        return sum(self._is_waiting(request) for request in self._requests.values())

    @property
    def num_running(self) -> int:
        return sum(r.is_running for r in self._requests.values())

    @property
    def num_finished(self) -> int:
        return self._endings.num_finished

    @property
    def num_failed(self) -> int:
        return self._endings.num_failed

    def requests(self) -> tuple[Request, ...]:
        return tuple(self._requests.values())

    def requests_by_instance(self) -> Counter[str]:
        """How many have work on it, or are moving to it."""
        counts = Counter[str]()
        for request in self._requests.values():
            if not request.is_final:
                counts.update(name for name in request.instance_ids if request.is_at(name))
        return counts

    @property
    def books(self) -> Books:
        """The cluster as the policies see it."""
        return self._live.books

    def capacity(self) -> Capacity:
        """What the instances could hold if they were idle."""
        return cluster_capacity(self._live.books.instances.values())

    def expected_tokens(self, max_tokens: int) -> int:
        return self._expectation.expected_tokens(max_tokens)

    def check_integrity(self) -> None:
        """Raises AssertionError if something of an ended request is held; called when idle and by tests."""
        self._endings.check_integrity()
        self._live.check_integrity()
        if not self._requests:
            held = [book.instance_id for book in self._live.books.instances.values() if not book.is_idle]
            assert not held, f"promised without requests: {held}"
            self._warmth.check_idle()

    # verbs

    def _note_encode(self, instance: Instance, num_tokens: int, seconds: float) -> None:
        self._paces.note_encode(instance.instance_id, num_tokens, seconds)
        self._scheduler.note_encode(instance.instance_id, num_tokens, seconds)

    def _spoken_of(self, said: StageReport | TokenRun | FailureReport | NeedReport) -> Request | None:
        """The request that may be spoken of under this dispatch number."""
        request = self._requests.get(said.request_id)
        return request if request is not None and request.listens_to(said.attempt) else None

    def _repeat(self, request: Request, cause: str) -> None:
        self._repeats.repeat(request, cause)

    def _note_encoded(self, request: Request) -> None:
        if request.state is RequestState.ENCODING and len(request.encoded) == len(request.media):
            request.advance(RequestState.PREFILLING)

    def _is_of_no_matter(self, request: Request, failure: FailureReport) -> bool:
        """Whether the request does without the embedding.

        It does where the prefill instance has ended its part, well or badly: that says so itself, but may be
        heard after the encoder.
        """
        if failure.stage is not Stage.ENCODE or failure.item_index >= len(request.media):
            return False
        return failure.code == _NOT_FOUND or not request.lacks(failure.item_index)

    def _forgo_embeddings(self, request: Request, instance: Instance) -> None:
        """It has its first token without them."""
        request.forgo_embeddings(instance.instance_id)
        self._warmth.under_way.forgo(request.request_id, instance.instance_id)
        self._live.note(request)

    def _let_go(self, request: Request) -> None:
        """It needs no instance any more."""
        self._note_seat(request)
        self._live.end(request)
        self._warmth.under_way.end(request.request_id)
        self._warmth.leave(request.request_id)
        self._explanations.note_end(request)
        self.recent.note_end(request)

    def _note_seat(self, request: Request) -> None:
        if (work := self._live.work_of(request)) is not None:
            request.seat = work.seat

    def _is_waiting(self, request: Request) -> bool:
        return request.state is RequestState.QUEUED

    def _dispatch(self, request: Request, placement: Placement) -> None:
        request.place(placement, self._next_attempt())
        request.dispatched_s = self._clock.now_s()
        request.first_dispatched_s = request.first_dispatched_s or request.dispatched_s
        self._explanations.note_dispatch(request, self._warmth.of_request(request.request_id), placement)
        self._live.note(request)
        self._note_seat(request)
        self._orders.send(request)

    def _next_attempt(self) -> int:
        return next(self._dispatch_numbers) % 2**32

    def _take_run(self, instance: Instance, run: TokenRun) -> None:
        request = self._spoken_of(run)
        if request is None or request.is_final or not request.may_make_tokens(instance.instance_id):
            return
        self._migrations.note_run(request, run)
        frees_room = not request.is_handed_over
        if request.output.push(run):
            self._note_tokens(request)
        if request.output.finish is not None:
            self._note_finished(request)
            self._endings.finish(request, reporter=instance if run.finish else None)
            self.tick()
        elif frees_room:
            self.tick()  # the prefill instance has budget again, or blocks

    def _note_tokens(self, request: Request) -> None:
        if request.first_token_s is None:
            request.first_token_s = self._clock.now_s()
            if (work := self._live.work_of(request)) is not None:
                self._scheduler.note_first_token(work, request.first_token_s - request.arrival_s)
        if request.state is not RequestState.DECODING:
            request.advance(RequestState.DECODING)
        request.note_tokens()
        self._live.note_tokens(request)

    def _note_finished(self, request: Request) -> None:
        work, num_more = self._live.work_of(request), request.num_outputs - 1
        if work is not None and request.first_token_s is not None:
            decoded_s = self._clock.now_s() - request.first_token_s
            self._scheduler.note_finished(work, decoded_s / num_more if num_more else 0.0)


def _blamed_field(request: Request, failure: FailureReport) -> str:
    """Stages know the item's index; the client knows where it put it."""
    if failure.stage is Stage.ENCODE and failure.item_index < len(request.media):
        return request.media[failure.item_index].field
    return failure.field
