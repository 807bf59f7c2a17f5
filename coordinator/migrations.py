"""Moves decoding requests from one instance to another.

start: DecodeCommand to the target, MigrateCommand to the source
while it is under way: both ends' tokens count, and blocks are promised at both
the source reports: moved, the target decodes from now on ── or stayed, the target is told to cancel
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from coordinator.errors import CannotMigrateError, NotFoundError
from coordinator.migration import Migration, MigrationOutcome
from coordinator.policy.books import Books
from coordinator.policy.migration import choose_target, refusal
from coordinator.registry import Instance, Registry
from coordinator.request import Request
from coordinator.stage_messages import (
    CancelCommand,
    DecodeCommand,
    MigrateCommand,
    MigrationReport,
    TokenRun,
)
from core.clock import Clock
from core.lifecycle import RequestState

log = logging.getLogger(__name__)

Repeat = Callable[[Request, str], None]


class Migrations:
    """Works on the dispatcher's requests; nothing here waits.

    `next_attempt` gives dispatch numbers, `repeat` dispatches a request again whose decoder is gone,
    `note` is told of every request that has changed.
    """

    def __init__(
        self,
        requests: Mapping[str, Request],
        registry: Registry,
        clock: Clock,
        *,
        books: Books,
        note: Callable[[Request], None],
        next_attempt: Callable[[], int],
        repeat: Repeat,
    ) -> None:
        self._requests = requests
        self._registry = registry
        self._clock = clock
        self._books = books
        self._note = note
        self._next_attempt = next_attempt
        self._repeat = repeat

    def start(self, request_id: str, target_id: str | None) -> asyncio.Future[MigrationOutcome]:
        """Begins to move a request, to the least loaded instance with room if None; the future never raises.

        Raises NotFoundError, CannotMigrateError.
        """
        request = self._movable(request_id)
        source = self._source_of(request)
        target = self._target_for(request, source, target_id)
        outcome = asyncio.get_running_loop().create_future()
        migration = Migration(source.instance_id, target.instance_id, self._next_attempt(), outcome)
        request.migration = migration
        self._note(request)
        sequence = replace(request.sequence(), attempt=migration.new_attempt)
        target.send(DecodeCommand(sequence, source.peer))
        source.send(MigrateCommand(request_id, request.attempt, migration.new_attempt, target.peer))
        return outcome

    def take_report(self, instance: Instance, report: MigrationReport) -> None:
        """The source says how it went; what is said of a move that was called off is dropped."""
        request = self._requests.get(report.request_id)
        migration = None if request is None else request.migration
        if request is None and not report.has_moved:
            # The target ended the answer, and its word of the commit was lost: the source goes on for nobody.
            instance.send(CancelCommand(report.request_id, report.attempt))
        if request is None or migration is None or migration.new_attempt != report.new_attempt:
            return
        if (migration.source, request.attempt) != (instance.instance_id, report.attempt):
            return
        if report.has_moved or migration.has_shown:
            self._moved(request, migration, report)
        else:
            self.call_off(request, report.reason)

    def note_run(self, request: Request, run: TokenRun) -> None:
        """Tokens of a request came from one of its ends."""
        if request.migration is not None and run.attempt == request.migration.new_attempt:
            request.migration.has_shown = True

    def lose_target(self, request: Request, cause: str) -> None:
        """The target cannot go on. Whether that matters the source knows: it answers in any case."""
        if request.migration is not None:
            request.migration.target_loss = request.migration.target_loss or cause

    def outlives_source(self, request: Request, instance_id: str) -> bool:
        """Whether the request, as this instance is lost, goes on at a target that has shown tokens.

        It does not if tokens are missing in between: the source made them, and its word of them is lost.
        """
        migration = request.migration
        if migration is None or migration.source != instance_id or not migration.has_shown:
            return False
        if request.output.has_gap:
            return False
        self._moved(request, migration, MigrationReport(request.request_id, 0, 0, True))
        return True

    def call_off(self, request: Request, reason: str) -> None:
        """The request stays, or ends, where it is, and the target drops it; nothing if none is under way."""
        migration = request.migration
        if migration is None:
            return
        request.migration = None
        self._note(request)
        target = self._registry.get(migration.target)
        if target is not None:
            target.send(CancelCommand(request.request_id, migration.new_attempt))
        self._settle(request, migration, MigrationReport(request.request_id, 0, 0, False, reason))

    def _movable(self, request_id: str) -> Request:
        request = self._requests.get(request_id)
        if request is None:
            raise NotFoundError("request_id", f"no request {request_id!r} is running")
        if request.migration is not None:
            raise CannotMigrateError(f"request {request_id} is being moved already")
        if not request.is_decoding:
            raise CannotMigrateError(f"request {request_id} is not decoding: {_state_in_words(request)}")
        return request

    def _source_of(self, request: Request) -> Instance:
        assert request.placement is not None
        source = self._registry.get(request.placement.decode)
        if source is None:
            raise CannotMigrateError(f"{request.placement.decode} is gone")
        return source

    def _target_for(self, request: Request, source: Instance, target_id: str | None) -> Instance:
        num_tokens = len(request.prompt) + request.reserved_outputs
        chosen = target_id or choose_target(
            self._books.instances.values(), source.instance_id, num_tokens, request.group
        )
        if chosen is None:
            raise CannotMigrateError("no other decode instance has room")
        target = self._registry.get(chosen)
        if target is None:
            raise NotFoundError("instance_id", f"no instance {chosen!r} is attached")
        if target is source:
            raise CannotMigrateError(f"request {request.request_id} decodes on {chosen} already")
        books = self._books.instances
        if source.instance_id in books and books[chosen].arm is not books[source.instance_id].arm:
            raise CannotMigrateError(f"{chosen} is in the other arm of the experiment")
        reason = refusal(books[chosen], num_tokens)
        if reason:
            raise CannotMigrateError(reason)
        return target

    def _moved(self, request: Request, migration: Migration, report: MigrationReport) -> None:
        source = self._registry.get(migration.source)
        if not report.has_moved and source is not None:
            # The target's answer to the commit was lost; it made tokens, and they have been sent.
            source.send(CancelCommand(request.request_id, request.attempt))
        request.migration = None
        request.move_to(migration.target, migration.new_attempt, self._clock.now_s())
        self._note(request)
        self._settle(request, migration, replace(report, has_moved=True, reason=""))
        if migration.target_loss and not request.is_final:
            self._repeat(request, migration.target_loss)

    def _settle(self, request: Request, migration: Migration, report: MigrationReport) -> None:
        outcome = MigrationOutcome(
            request_id=request.request_id,
            source=migration.source,
            target=migration.target,
            has_moved=report.has_moved,
            reason=report.reason,
            pause_ms=report.pause_ns / 1e6,
            size_bytes=report.size_bytes,
            transport=report.transport,
        )
        facts = {"request_id": request.request_id, "tenant": request.tenant}
        log.info("request %s: %s", request.request_id, _in_words(outcome), extra=facts)
        if not migration.outcome.done():  # whoever asked may have left
            migration.outcome.set_result(outcome)


def _state_in_words(request: Request) -> str:
    is_settling = request.state is RequestState.DECODING
    return "its KV is still on the way to the decoder" if is_settling else f"it is {request.state.value}"


def _in_words(outcome: MigrationOutcome) -> str:
    way = f"from {outcome.source} to {outcome.target}"
    if not outcome.has_moved:
        return f"did not move {way}: {outcome.reason}"
    pause = f"stood still {outcome.pause_ms:.1f} ms"
    return f"moved {way} by {outcome.transport}, {outcome.size_bytes} bytes, {pause}"
