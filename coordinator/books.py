"""Keeps what the policies see in step with the attached instances and the accepted requests."""

from __future__ import annotations

from typing import Protocol

from coordinator.policy.books import Books, InstanceBook
from coordinator.policy.plan import GROUPS
from coordinator.policy.work import MediaWork, Work
from coordinator.registry import Instance
from coordinator.request import Request
from core.clock import Clock
from core.lifecycle import RequestState

# A decoder's context grows by a token a step. The books hear of it where it begins another so many: there
# an answer longer than expected takes another block, whose size is a multiple of this if it is to be cached.
_NOTED_TOKENS = 16


class Estimates(Protocol):
    """Predicted seconds on an instance's device."""

    def prefill_s(self, num_tokens: int) -> float: ...

    def encode_s(self, num_tokens: int) -> float: ...


class LiveBooks:
    """One per coordinator; the dispatcher calls `note` after every change of a request."""

    def __init__(self, clock: Clock, estimates: Estimates) -> None:
        self.books = Books()
        self._clock = clock
        self._estimates = estimates
        self._works: dict[str, Work] = {}

    def attach(self, instance: Instance) -> None:
        info = instance.info
        book = InstanceBook(
            instance_id=instance.instance_id,
            roles=instance.roles,
            group=instance.group,
            block_tokens=info.block_tokens,
            total_kv_blocks=info.total_kv_blocks,
            total_embedding_blocks=info.total_embedding_blocks or None,
            max_sequences=info.max_sequences or None,
            since_s=self._clock.now_s(),
        )
        self.books.add_instance(book)

    def detach(self, instance: Instance) -> None:
        """Nothing if it is not here."""
        if instance.instance_id in self.books.instances:
            self.books.remove_instance(instance.instance_id)

    def note_roles(self, instance: Instance) -> None:
        """It plays what it says now."""
        if instance.instance_id in self.books.instances:
            self.books.set_roles(instance.instance_id, instance.roles, instance.group, self._clock.now_s())

    def queue(self, request: Request) -> None:
        """It waits for dispatch, for the first time or again."""
        work = self._works.get(request.request_id) or self._make(request)
        self._works[request.request_id] = work
        _copy(request, work)
        self.books.queue(work)

    def note(self, request: Request) -> None:
        """It has changed; nothing where it does not run."""
        work = self._works.get(request.request_id)
        if work is not None and request.is_running:
            _copy(request, work)
            self.books.note(work)

    def note_tokens(self, request: Request) -> None:
        """It has more tokens: of interest where something depends on it."""
        work = self._works.get(request.request_id)
        if work is None:
            return
        context_tokens = work.prompt_tokens + request.num_outputs
        has_grown = context_tokens // _NOTED_TOKENS > work.context_tokens // _NOTED_TOKENS
        has_turned = not work.is_handed_over and (work.is_prefilled, False) != (
            request.has_shown_token,
            request.is_handed_over,
        )
        if has_grown or has_turned:
            self.note(request)

    def end(self, request: Request) -> None:
        """It holds nothing any more; nothing where that was said before."""
        work = self._works.pop(request.request_id, None)
        if work is not None:
            self.books.end(work)

    def work_of(self, request: Request) -> Work | None:
        return self._works.get(request.request_id)

    def check_integrity(self) -> None:
        """Raises AssertionError where sums are wrong, or something is held of no request."""
        self.books.check_integrity()
        waiting = {work.request_id for group in GROUPS for work in self.books.waiting(group)}
        known = self.books.running.keys() | waiting
        assert known <= self._works.keys(), f"unknown to the dispatcher: {known - self._works.keys()}"

    def _make(self, request: Request) -> Work:
        media = tuple(
            MediaWork(
                each.span.num_tokens,
                each.item.width * each.item.height,
                self._estimates.encode_s(each.span.num_tokens),
                each.span.end_token,
            )
            for each in request.media
        )
        return Work(
            request_id=request.request_id,
            arrival_s=request.arrival_s,
            prompt_tokens=len(request.prompt),
            reserve_tokens=request.reserve_tokens,
            prefill_s=self._estimates.prefill_s(len(request.prompt)),
            media=media,
            priority=request.priority,
            tenant=request.tenant,
            conversation=request.conversation,
        )


def _copy(request: Request, work: Work) -> None:
    """Brings the work up to what the request is now."""
    is_waiting = request.state is RequestState.QUEUED
    work.placement = None if is_waiting else request.placement
    work.encoded = set(request.encoded)
    work.reserve_tokens = request.reserve_tokens
    work.num_outputs = request.num_outputs
    work.outputs_at_dispatch = request.num_outputs if is_waiting else request.outputs_at_dispatch
    work.is_prefilled = not is_waiting and request.has_shown_token
    work.is_handed_over = not is_waiting and request.is_handed_over
    work.moving_to = None if request.migration is None else request.migration.target
    work.num_moves = 0 if request.moved_s is None else max(1, request.num_moves)
